//! Drawing: a canvas of panels, bars and lines with their axes. Plain SVG, which a browser and GitHub
//! show alike, on a white ground so that it can be read in the dark as well.

use std::fmt::Write as _;

/// One series of a panel: a name, its colour, and a value at each place of the axis that has one.
pub struct Series {
    pub name: String,
    pub color: &'static str,
    pub values: Vec<Option<f64>>,
}

pub struct Panel {
    pub title: String,
    /// With its unit.
    pub y_label: &'static str,
    pub x_label: &'static str,
    pub places: Vec<String>,
    pub series: Vec<Series>,
    pub kind: PanelKind,
}

#[derive(Clone, Copy, PartialEq)]
pub enum PanelKind {
    Bars,
    Lines,
}

pub const WIDTH: f64 = 1_080.0;
const PANEL_HEIGHT: f64 = 330.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 58.0;
const INK: &str = "#24292f";
const FAINT: &str = "#d8dee4";

/// Panels below each other, each as wide as its share of a row says.
pub fn document(title: &str, rows: &[Vec<Panel>]) -> String {
    let height = 64.0 + rows.len() as f64 * PANEL_HEIGHT;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">
<rect width="100%" height="100%" fill="white"/>
<text x="24" y="36" font-size="18" font-weight="600">{}</text>
"#,
        escaped(title)
    );
    for (number, row) in rows.iter().enumerate() {
        let width = WIDTH / row.len() as f64;
        for (column, panel) in row.iter().enumerate() {
            let (x, y) = (column as f64 * width, 52.0 + number as f64 * PANEL_HEIGHT);
            let _ = writeln!(svg, r#"<g transform="translate({x:.0} {y:.0})">"#);
            draw(&mut svg, panel, width);
            svg.push_str("</g>\n");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Logarithmic from bottom to top, since what is compared lies far apart.
struct Scale {
    low: f64,
    high: f64,
    bottom: f64,
    top: f64,
}

impl Scale {
    fn of(panel: &Panel) -> Scale {
        let values = || panel.series.iter().flat_map(|series| series.values.iter().flatten());
        let low = values().copied().fold(f64::INFINITY, f64::min).max(0.001);
        let high = values().copied().fold(0.0, f64::max).max(low);
        // A bar that is as low as the axis could not be seen.
        let room = if panel.kind == PanelKind::Bars { 2.0 } else { 1.0 };
        Scale {
            low: 10_f64.powf((low / room).log10().floor()),
            high: 10_f64.powf((high.log10() + 0.001).ceil()),
            bottom: PANEL_HEIGHT - BOTTOM,
            top: TOP,
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).log10() / (self.high / self.low).log10();
        self.bottom - share * (self.bottom - self.top)
    }
}

fn draw(svg: &mut String, panel: &Panel, width: f64) {
    let scale = Scale::of(panel);
    let (left, right) = (LEFT, width - RIGHT);
    let _ = writeln!(
        svg,
        r#"<text x="24" y="30" font-size="14" font-weight="600">{}</text>"#,
        escaped(&panel.title)
    );
    legend(svg, panel);
    let mut value = scale.low;
    while value <= scale.high * 1.001 {
        let y = scale.y(value);
        let _ = writeln!(svg, r#"<path d="M{left} {y:.1}H{right:.0}" stroke="{FAINT}"/>"#);
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 8.0,
            y + 4.0,
            number(value)
        );
        value *= 10.0;
    }
    let middle = f64::midpoint(scale.top, scale.bottom);
    let _ = writeln!(
        svg,
        r#"<text transform="translate(20 {middle:.0}) rotate(-90)" text-anchor="middle">{}</text>"#,
        escaped(panel.y_label)
    );
    let _ = writeln!(
        svg,
        r#"<text x="{:.0}" y="{}" text-anchor="middle">{}</text>"#,
        f64::midpoint(left, right),
        PANEL_HEIGHT - 20.0,
        escaped(panel.x_label)
    );
    let step = (right - left) / panel.places.len().max(1) as f64;
    for (place, name) in panel.places.iter().enumerate() {
        let x = left + (place as f64 + 0.5) * step;
        let _ = writeln!(
            svg,
            r#"<text x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#,
            scale.bottom + 18.0,
            escaped(name)
        );
    }
    match panel.kind {
        PanelKind::Bars => bars(svg, panel, &scale, left, step),
        PanelKind::Lines => lines(svg, panel, &scale, left, step),
    }
}

fn legend(svg: &mut String, panel: &Panel) {
    let mut x = 24.0;
    for series in &panel.series {
        let _ = writeln!(svg, r#"<rect x="{x:.0}" y="42" width="11" height="11" fill="{}"/>"#, series.color);
        let _ = writeln!(svg, r#"<text x="{:.0}" y="52">{}</text>"#, x + 16.0, escaped(&series.name));
        x += 36.0 + 6.6 * series.name.chars().count() as f64;
    }
}

fn bars(svg: &mut String, panel: &Panel, scale: &Scale, left: f64, step: f64) {
    for place in 0..panel.places.len() {
        // Only those that are there, so that no gap looks like a zero.
        let present: Vec<_> =
            panel.series.iter().filter_map(|series| Some((series, series.values[place]?))).collect();
        let width = (step * 0.86 / present.len().max(1) as f64).min(44.0);
        let start = left + (place as f64 + 0.5) * step - width * present.len() as f64 / 2.0;
        for (index, (series, value)) in present.into_iter().enumerate() {
            let (x, y) = (start + index as f64 * width, scale.y(value));
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{}"><title>{}: {}</title></rect>"#,
                width - 2.0,
                scale.bottom - y,
                series.color,
                escaped(&series.name),
                number(value)
            );
            let _ = writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" font-size="9">{}</text>"#,
                x + width / 2.0 - 1.0,
                y - 4.0,
                short(value)
            );
        }
    }
}

fn lines(svg: &mut String, panel: &Panel, scale: &Scale, left: f64, step: f64) {
    for series in &panel.series {
        let points: Vec<_> = series
            .values
            .iter()
            .enumerate()
            .filter_map(|(place, value)| {
                Some((left + (place as f64 + 0.5) * step, scale.y((*value)?), (*value)?))
            })
            .collect();
        let path: Vec<_> = points.iter().map(|(x, y, _)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>"#,
            path.join(" "),
            series.color
        );
        for (x, y, value) in points {
            let _ = writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{}"><title>{}: {}</title></circle>"#,
                series.color,
                escaped(&series.name),
                number(value)
            );
        }
    }
}

/// With commas, and only as exact as it is large.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{}", (value * 1_000.0).round() / 1_000.0);
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn short(value: f64) -> String {
    match value {
        value if value >= 9_950.0 => format!("{:.0}k", value / 1_000.0),
        value if value >= 1_000.0 => format!("{:.1}k", value / 1_000.0),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        assert_eq!(
            [0.001, 2.5, 10.0, 1_234.0, 1e6].map(number),
            ["0.001", "2.5", "10", "1,234", "1,000,000"]
        );
    }

    #[test]
    fn a_scale_begins_and_ends_with_a_power_of_ten() {
        let series = Series { name: String::new(), color: "", values: vec![Some(30.0), None, Some(1_000.0)] };
        let panel = Panel {
            title: String::new(),
            y_label: "",
            x_label: "",
            places: vec![String::new(); 3],
            series: vec![series],
            kind: PanelKind::Lines,
        };
        let scale = Scale::of(&panel);
        assert_eq!((scale.low.round(), scale.high.round()), (10.0, 10_000.0));
        assert!(scale.y(10.0) > scale.y(1_000.0), "downwards on the screen");
    }
}
