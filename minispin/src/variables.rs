//! Values of the application's variables, and the templates that use them. Everything is resolved at start:
//! a component can never meet a variable without a value.

use std::collections::BTreeMap;

use crate::manifest;

/// Prefix of the environment variables that Spin reads, too.
pub const ENVIRONMENT_PREFIX: &str = "SPIN_VARIABLE_";

/// Why variables could not be given their values.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Unresolved {
    #[error("`--variable {0}`: the manifest's [variables] has no such name")]
    Unknown(String),
    #[error(
        "the variable `{name}` is required and has no value: give `--variable {name}=…` or set {}",
        environment_name(.name)
    )]
    Missing { name: String },
    #[error("unmatched `{{{{` in {0:?}")]
    Unmatched(String),
    #[error("{template:?} names the variable `{name}`, which is not in [variables]")]
    NotDefined { template: String, name: String },
}

/// Every application variable with its value. Not `Debug`: some of them are secrets.
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// `given` comes from the command line and wins over the environment, which wins over defaults.
    pub fn resolve(
        declared: &BTreeMap<String, manifest::Variable>,
        given: &[(String, String)],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Unresolved> {
        if let Some((name, _)) = given.iter().find(|(name, _)| !declared.contains_key(name)) {
            return Err(Unresolved::Unknown(name.clone()));
        }
        declared
            .iter()
            .map(|(name, variable)| {
                // The last one wins where a name is given twice, as with most command line tools.
                let given = given.iter().rev().find(|(other, _)| other == name);
                given
                    .map(|(_, value)| value.clone())
                    .or_else(|| environment(&environment_name(name)))
                    .or_else(|| variable.default.clone())
                    .map(|value| (name.clone(), value))
                    .ok_or_else(|| Unresolved::Missing { name: name.clone() })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Replaces each `{{ name }}`.
    pub fn fill(&self, template: &str) -> Result<String, Unresolved> {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((literal, expression)) = rest.split_once("{{") {
            filled.push_str(literal);
            let (name, after) =
                expression.split_once("}}").ok_or_else(|| Unresolved::Unmatched(template.to_owned()))?;
            let name = name.trim();
            let value = self.0.get(name).ok_or_else(|| Unresolved::NotDefined {
                template: template.to_owned(),
                name: name.to_owned(),
            })?;
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn environment_name(name: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", name.to_ascii_uppercase())
}

/// Spin's rule for names: `a-z`, `0-9` and single underscores, first a letter, last no underscore.
pub fn check_name(name: &str) -> Result<(), String> {
    let valid = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.ends_with('_')
        && !name.contains("__");
    if valid {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no variable name: lower-case letters, digits and single underscores between them, \
         starting with a letter"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn declared() -> BTreeMap<String, manifest::Variable> {
        let text = r#"
            spin_manifest_version = 2
            application = { name = "x" }
            variables.host = { default = "localhost" }
            variables.token = { required = true }
            trigger.http = [{ route = "/", component = "x" }]
            component.x.source = "x.wasm"
        "#;
        manifest::Manifest::parse(text, Path::new("")).expect("valid").variables
    }

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_default() {
        let environment = |name: &str| (name == "SPIN_VARIABLE_TOKEN").then(|| "from env".to_owned());
        let values = Values::resolve(&declared(), &[], environment).expect("resolved");
        assert_eq!(values.fill("{{ token }} at {{host}}").as_deref(), Ok("from env at localhost"));

        let flags = given(&[("token", "first"), ("token", "second")]);
        let values = Values::resolve(&declared(), &flags, environment).expect("resolved");
        assert_eq!(values.fill("{{ token }}").as_deref(), Ok("second"));
    }

    #[test]
    fn a_required_variable_without_a_value_is_named() {
        let error = Values::resolve(&declared(), &[], |_| None).err().expect("unresolved");
        assert!(error.to_string().contains("`token`"), "{error}");
        assert!(error.to_string().contains("SPIN_VARIABLE_TOKEN"), "{error}");
    }

    #[test]
    fn an_unknown_name_on_the_command_line_is_refused() {
        let error = Values::resolve(&declared(), &given(&[("tokn", "x")]), |_| None).err();
        assert_eq!(error, Some(Unresolved::Unknown("tokn".into())));
    }

    #[test]
    fn templates_that_cannot_be_filled_say_why() {
        let values = Values::resolve(&declared(), &given(&[("token", "t")]), |_| None).expect("resolved");
        assert_eq!(values.fill("{{ host"), Err(Unresolved::Unmatched("{{ host".into())));
        assert!(matches!(values.fill("{{ nope }}"), Err(Unresolved::NotDefined { .. })));
        assert_eq!(values.fill("plain } text").as_deref(), Ok("plain } text"));
    }

    #[test]
    fn names_follow_spins_rule() {
        for good in ["a", "db_url", "v2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "Upper", "2nd", "_x", "x_", "a__b", "a-b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
