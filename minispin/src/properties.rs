//! Whatever a manifest says is honoured or refused with a reason, and never anything else.

use std::path::Path;

use proptest::prelude::*;

use crate::{
    allowed_hosts::{AllowedHosts, Destination},
    manifest::Manifest,
    routes::Route,
    variables::{Values, check_name},
};

/// A manifest that is nearly one: lines of a good one, some missing, some with something else in them.
fn manifest() -> impl Strategy<Value = String> {
    const LINES: [&str; 12] = [
        "spin_manifest_version = 2",
        "[application]",
        "name = \"x\"",
        "[variables]",
        "host = { default = \"localhost\" }",
        "[[trigger.http]]",
        "route = \"/...\"",
        "component = \"x\"",
        "[component.x]",
        "source = \"x.wasm\"",
        "allowed_outbound_hosts = [\"http://*:*\"]",
        "variables = { host = \"{{ host }}\" }",
    ];
    let change = prop_oneof![8 => Just(None), 1 => Just(Some(String::new())), 1 => "[a-z.\\[\\]={}\" ]{0,20}".prop_map(Some)];
    prop::collection::vec(change, LINES.len()).prop_map(|changes| {
        let lines =
            LINES.iter().zip(changes).map(|(line, change)| change.unwrap_or_else(|| (*line).to_owned()));
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn values(name: &str, value: &str) -> Values {
    let text = format!(
        "spin_manifest_version = 2\napplication.name = \"x\"\nvariables.{name}.default = \"\"\n\
         trigger.http = [{{ route = \"/\", component = \"x\" }}]\ncomponent.x.source = \"x.wasm\""
    );
    let declared = Manifest::parse(&text, Path::new("")).expect("a manifest").variables;
    Values::resolve(&declared, &[(name.to_owned(), value.to_owned())], |_| None).expect("resolved")
}

proptest! {
    #[test]
    fn a_manifest_is_read_or_refused_with_a_reason(text in manifest(), any in "\\PC{0,80}") {
        for text in [text, any] {
            match Manifest::parse(&text, Path::new("")) {
                Ok(manifest) => {
                    let has_component = |trigger: &crate::manifest::Trigger| manifest.components.contains_key(&trigger.component);
                    prop_assert!(!manifest.triggers.is_empty() && manifest.triggers.iter().all(has_component));
                }
                Err(refused) => prop_assert!(!refused.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn a_variable_stands_in_a_template_as_it_is(
        name in "[a-z]([a-z0-9]|_[a-z0-9]){0,8}", value in "\\PC{0,20}", blanks in " {0,3}",
        before in "[^{}]{0,10}", after in "[^{}]{0,10}",
    ) {
        prop_assert!(check_name(&name).is_ok());
        let template = format!("{before}{{{{{blanks}{name}{blanks}}}}}{after}");
        let filled = values(&name, &value).fill(&template);
        prop_assert_eq!(filled, Ok(format!("{before}{value}{after}")));
    }

    #[test]
    fn any_template_is_filled_in_or_refused(template in "([a-z ]|\\{\\{|\\}\\}|\\PC){0,12}") {
        match values("a", "value").fill(&template) {
            Ok(filled) => {
                let has_variable = template.contains("{{");
                prop_assert!(has_variable || filled == template);
            }
            Err(unresolved) => prop_assert!(!unresolved.to_string().is_empty()),
        }
    }

    #[test]
    fn any_name_is_one_by_spins_rule_or_is_refused_by_name(name in "[a-z0-9_A-Z-]{0,8}|\\PC{0,8}") {
        if let Err(problem) = check_name(&name) {
            let named = format!("{name:?}");
            prop_assert!(problem.contains(&named));
        }
    }

    #[test]
    fn a_host_allows_itself_on_its_port_and_nothing_else(
        scheme in "http|https|postgres|redis", host in "[a-z]{1,8}(\\.[a-z]{2,5}){1,2}", port in 1..u16::MAX,
    ) {
        let hosts = AllowedHosts::parse(&[format!("{scheme}://{host}:{port}")]).expect("an entry");
        let allows = |host: &str, port: u16| {
            let destination = Destination::parse(&format!("{scheme}://{host}:{port}"), "http");
            hosts.allow(&destination.expect("a destination"))
        };
        prop_assert!(allows(&host, port));
        let others = [allows(&host, port + 1), allows(&format!("x{host}"), port), allows(&format!("x.{host}"), port)];
        prop_assert_eq!(others, [false; 3]);
        let any = AllowedHosts::parse(&[format!("{scheme}://*.{host}:*")]).expect("an entry");
        let below = Destination::parse(&format!("{scheme}://x.{host}:{port}"), "http").expect("a destination");
        let same = Destination::parse(&format!("{scheme}://{host}:{port}"), "http").expect("a destination");
        prop_assert!(any.allow(&below) && !any.allow(&same));
    }

    #[test]
    fn any_entry_and_any_destination_are_understood_or_refused(
        entry in "(\\*|[a-z]{0,8})(://)?[a-z0-9.:*/\\[\\]-]{0,20}|\\PC{0,20}", address in "([a-z]{1,5}://)?\\PC{0,20}",
    ) {
        let hosts = AllowedHosts::parse(std::slice::from_ref(&entry));
        let destination = Destination::parse(&address, "http");
        match (hosts, destination) {
            (Ok(hosts), Ok(destination)) => _ = hosts.allow(&destination),
            (Err(problem), _) | (_, Err(problem)) => prop_assert!(!problem.is_empty()),
        }
    }

    #[test]
    fn a_route_is_read_as_it_is_shown(text in "(/[a-z:.*]{0,5}){0,4}(/\\.\\.\\.)?|\\PC{0,10}", path in "(/[a-z]{0,3}){0,4}") {
        if let Ok(route) = Route::parse(&text) {
            prop_assert_eq!(Route::parse(&route.to_string()), Ok(route.clone()));
            if let Some(rest) = route.matches(&path) {
                prop_assert!(path.ends_with(rest));
            }
        }
    }
}
