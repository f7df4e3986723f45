//! The formats of `/metrics`, and which of them a request asks for.

use axum::http::{HeaderMap, header};
use mime::Mime;
use prometheus_client::encoding::prometheus_text;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which everything that scrapes can read.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that Accept prefers (RFC 9110, section 12.5.1). Text without a preference, since a
    /// person or an old client sends none.
    pub fn preferred(headers: &HeaderMap) -> Format {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Mime> =
            values.flat_map(|value| value.split(',')).filter_map(|range| range.trim().parse().ok()).collect();
        let preference = |format: Format| {
            let matching = ranges.iter().filter_map(|range| Some((format.matches(range)?, quality(range))));
            // The most specific range decides on the quality.
            let decisive = matching.max().filter(|(_, quality)| *quality > 0);
            decisive.map(|(specificity, quality)| (quality, specificity))
        };
        match preference(Format::OpenMetrics) > preference(Format::Text) {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Whether a range covers the format, and how specifically.
    fn matches(self, range: &Mime) -> Option<u8> {
        let own: Mime = self.content_type().parse().ok()?;
        let version = range.get_param("version");
        match (range.type_(), range.subtype()) {
            (mime::STAR, _) => Some(0),
            (kind, mime::STAR) => (kind == own.type_()).then_some(1),
            _ if range.essence_str() != own.essence_str() => None,
            _ => (version.is_none() || version == own.get_param("version")).then_some(2),
        }
    }
}

/// In thousandths.
fn quality(range: &Mime) -> u16 {
    let quality = range.get_param("q").and_then(|quality| quality.as_str().parse::<f32>().ok());
    (quality.unwrap_or(1.0).clamp(0.0, 1.0) * 1_000.0) as u16
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn preferred(accept: &[&'static str]) -> Format {
        let values = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
        Format::preferred(&values.collect())
    }

    #[test]
    fn text_is_the_format_unless_openmetrics_is_preferred() {
        for accept in [
            &[][..],
            &["*/*"],
            &["text/plain;version=0.0.4"],
            &["text/html, */*;q=0.8"],
            &["application/openmetrics-text;q=0.5, text/plain"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;version=0.0.1", "text/plain;q=0.1"],
            &["nonsense"],
        ] {
            assert_eq!(preferred(accept), Format::Text, "{accept:?}");
        }
        for accept in [
            &["application/openmetrics-text"][..],
            &["application/openmetrics-text, */*"],
            &["text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"],
            &["application/openmetrics-text;q=0.5, text/plain;q=0.1, */*;q=0.9"],
        ] {
            assert_eq!(preferred(accept), Format::OpenMetrics, "{accept:?}");
        }
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        ] {
            assert_eq!(preferred(&[accept]), Format::OpenMetrics, "{accept}");
        }
    }
}
