//! spin.toml, parsed once. What minispin cannot honour is refused with the key's full name, so that an
//! application never runs with a part of its manifest silently left out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{routes::Route, variables};

/// Keys that no field of a table took. Each is either unknown or something only Spin does.
type Rest = BTreeMap<String, toml::Value>;

/// Why a manifest cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("reading {path}: {source}; `--from` names the manifest to run")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Malformed(#[from] toml::de::Error),
    #[error("spin_manifest_version is {0}, minispin reads version 2")]
    Version(toml::Value),
    #[error("minispin does not support `{key}` in {place}; remove it, or run the application with Spin")]
    Unsupported { place: String, key: String },
    #[error("{place}: {problem}")]
    Invalid { place: String, problem: String },
}

impl Refused {
    fn unsupported(place: impl Into<String>, key: impl Into<String>) -> Self {
        Self::Unsupported { place: place.into(), key: key.into() }
    }

    fn invalid(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), problem: problem.into() }
    }
}

/// An application as its manifest describes it; templates are not yet filled in.
#[derive(Debug)]
pub struct Manifest {
    pub application: String,
    /// Application variables by name.
    pub variables: BTreeMap<String, Variable>,
    /// In the order of the manifest.
    pub triggers: Vec<Trigger>,
    pub components: BTreeMap<String, Component>,
}

#[derive(Debug)]
pub struct Trigger {
    pub route: Route,
    pub component: String,
}

#[derive(Debug, Deserialize)]
pub struct Variable {
    pub default: Option<String>,
    #[serde(default)]
    pub required: bool,
    /// minispin prints no values, so a secret one needs no special care.
    #[serde(rename = "secret", default)]
    _secret: bool,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug)]
pub struct Component {
    /// The .wasm file, relative paths resolved against the manifest's folder.
    pub source: PathBuf,
    pub description: Option<String>,
    pub allowed_outbound_hosts: Vec<String>,
    /// Component variables: name to template.
    pub variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawManifest {
    spin_manifest_version: toml::Value,
    application: RawApplication,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    #[serde(default)]
    trigger: RawTriggers,
    #[serde(default)]
    component: BTreeMap<String, RawComponent>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawApplication {
    name: String,
    #[serde(rename = "version")]
    _version: Option<String>,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "authors")]
    _authors: Option<Vec<String>>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Default, Deserialize)]
struct RawTriggers {
    #[serde(default)]
    http: Vec<RawTrigger>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawTrigger {
    #[serde(rename = "id")]
    _id: Option<String>,
    route: toml::Value,
    component: toml::Value,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize)]
struct RawComponent {
    source: toml::Value,
    description: Option<String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    build: Option<RawBuild>,
    #[serde(flatten)]
    rest: Rest,
}

/// Only `spin build` reads it; it is parsed so that a misspelt key is noticed here too.
#[derive(Deserialize)]
struct RawBuild {
    #[serde(rename = "command")]
    _command: toml::Value,
    #[serde(rename = "watch")]
    _watch: Option<Vec<String>>,
    #[serde(rename = "workdir")]
    _workdir: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn load(path: &Path) -> Result<Self, Refused> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Refused::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Checks a manifest whose relative paths start in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Refused> {
        let raw: RawManifest = toml::from_str(text)?;
        if raw.spin_manifest_version.as_integer() != Some(2) {
            return Err(Refused::Version(raw.spin_manifest_version));
        }
        nothing_left("the manifest", &raw.rest)?;
        nothing_left("[application]", &raw.application.rest)?;
        nothing_left("[trigger]", &raw.trigger.rest)?;

        for (name, variable) in &raw.variables {
            check_variable(name, variable)?;
        }
        let components = raw
            .component
            .into_iter()
            .map(|(id, component)| Ok((id.clone(), check_component(&id, component, folder)?)))
            .collect::<Result<BTreeMap<_, _>, Refused>>()?;
        let triggers =
            raw.trigger.http.into_iter().map(check_trigger).collect::<Result<Vec<_>, Refused>>()?;

        if triggers.is_empty() {
            return Err(Refused::invalid(
                "the manifest",
                "there is no [[trigger.http]], so nothing to serve",
            ));
        }
        for (index, trigger) in triggers.iter().enumerate() {
            let place = format!("[[trigger.http]] with route {}", trigger.route);
            if !components.contains_key(&trigger.component) {
                let problem = format!("there is no [component.{}]", trigger.component);
                return Err(Refused::invalid(place, problem));
            }
            if triggers[..index].iter().any(|earlier| earlier.route == trigger.route) {
                return Err(Refused::invalid(place, "an earlier trigger has the same route"));
            }
        }
        Ok(Self { application: raw.application.name, variables: raw.variables, triggers, components })
    }
}

fn nothing_left(place: &str, rest: &Rest) -> Result<(), Refused> {
    match rest.keys().next() {
        Some(key) => Err(Refused::unsupported(place, key)),
        None => Ok(()),
    }
}

fn check_variable(name: &str, variable: &Variable) -> Result<(), Refused> {
    let place = format!("[variables] {name}");
    variables::check_name(name).map_err(|problem| Refused::invalid(&place, problem))?;
    nothing_left(&place, &variable.rest)?;
    match (&variable.default, variable.required) {
        (None, false) => Err(Refused::invalid(place, "give it a `default`, or say `required = true`")),
        (Some(_), true) => Err(Refused::invalid(place, "`required` and `default` exclude each other")),
        _ => Ok(()),
    }
}

fn check_component(id: &str, raw: RawComponent, folder: &Path) -> Result<Component, Refused> {
    let place = format!("[component.{id}]");
    nothing_left(&place, &raw.rest)?;
    if let Some(build) = &raw.build {
        nothing_left(&format!("[component.{id}.build]"), &build.rest)?;
    }
    for name in raw.variables.keys() {
        variables::check_name(name)
            .map_err(|problem| Refused::invalid(format!("[component.{id}.variables] {name}"), problem))?;
    }
    let source = match raw.source {
        toml::Value::String(path) => folder.join(path),
        _ => return Err(Refused::unsupported(place, "source = { … } (only the path of a local file)")),
    };
    Ok(Component {
        source,
        description: raw.description,
        allowed_outbound_hosts: raw.allowed_outbound_hosts,
        variables: raw.variables,
    })
}

fn check_trigger(raw: RawTrigger) -> Result<Trigger, Refused> {
    let place = "[[trigger.http]]";
    nothing_left(place, &raw.rest)?;
    let toml::Value::String(route) = raw.route else {
        return Err(Refused::unsupported(place, "route = { … } (only a path)"));
    };
    let toml::Value::String(component) = raw.component else {
        return Err(Refused::unsupported(place, "component = { … } (only the name of a [component.…])"));
    };
    let route = Route::parse(&route)
        .map_err(|problem| Refused::invalid(format!("{place} with route {route}"), problem))?;
    Ok(Trigger { route, component })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "tasks"
        version = "1.0.0"
        [variables]
        db = { default = "postgres://127.0.0.1/tasks" }
        token = { required = true, secret = true }
        [[trigger.http]]
        route = "/api/..."
        component = "api"
        [component.api]
        source = "target/api.wasm"
        allowed_outbound_hosts = ["postgres://127.0.0.1:5432"]
        [component.api.variables]
        db = "{{ db }}"
        [component.api.build]
        command = "cargo build"
        watch = ["src/**/*.rs"]
    "#;

    fn refusal(text: &str) -> String {
        Manifest::parse(text, Path::new("")).expect_err("refused").to_string()
    }

    fn refusal_with(line: &str) -> String {
        refusal(&format!("{GOOD}\n{line}"))
    }

    #[test]
    fn a_manifest_with_every_supported_key_is_read() {
        let manifest = Manifest::parse(GOOD, Path::new("/app")).expect("valid");
        assert_eq!(manifest.application, "tasks");
        assert_eq!(manifest.components["api"].source, Path::new("/app/target/api.wasm"));
        assert_eq!(manifest.triggers[0].component, "api");
        assert!(manifest.variables["token"].required);
    }

    #[test]
    fn an_unsupported_key_is_refused_by_name_and_place() {
        for (line, key, place) in [
            ("[component.web]\nsource = \"x\"\nfiles = []", "files", "[component.web]"),
            ("[component.web]\nsource = \"x\"\nai_models = []", "ai_models", "[component.web]"),
            ("[application.trigger.redis]\naddress = \"x\"", "trigger", "[application]"),
            ("[[trigger.redis]]\nchannel = \"x\"", "redis", "[trigger]"),
            ("[variables.x]\ndefault = \"\"\nsort = 1", "sort", "[variables] x"),
            ("[component.api.build.environment]", "environment", "[component.api.build]"),
            (
                "[[trigger.http]]\nroute = \"/x\"\ncomponent = \"api\"\nexecutor = {}",
                "executor",
                "[[trigger.http]]",
            ),
            ("[outputs]", "outputs", "the manifest"),
        ] {
            let message = refusal_with(line);
            assert!(message.contains(&format!("`{key}` in {place};")), "{message}");
        }
    }

    #[test]
    fn sources_and_routes_that_are_not_plain_are_refused() {
        assert!(refusal_with("[component.w]\nsource = { url = \"x\" }").contains("source = {"));
        let trigger = "[[trigger.http]]\ncomponent = \"api\"\nroute = ";
        assert!(refusal_with(&format!("{trigger} {{ private = true }}")).contains("route = {"));
        assert!(refusal_with(&format!("{trigger} \"/a/:id\"")).contains(":id"));
        assert!(refusal_with(&format!("{trigger} \"/api/...\"")).contains("same route"));
    }

    #[test]
    fn variables_are_either_required_or_have_a_default() {
        assert!(refusal_with("[variables.x]\nsecret = true").contains("required = true"));
        assert!(refusal_with("[variables.x]\nrequired = true\ndefault = \"\"").contains("exclude"));
        assert!(refusal_with("[variables.Upper]\ndefault = \"\"").contains("Upper"));
    }

    #[test]
    fn a_trigger_needs_its_component() {
        let line = "[[trigger.http]]\nroute = \"/x\"\ncomponent = \"gone\"";
        assert!(refusal_with(line).contains("there is no [component.gone]"));
        assert!(refusal("spin_manifest_version = 1\napplication = { name = \"x\" }").contains("version 2"));
    }
}
