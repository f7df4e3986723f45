//! Takes what the page needs of Swagger UI out of the archive in its crate, and writes the table of all
//! files that the component serves, with their entity tags.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const FROM_SWAGGER_UI: [(&str, &str); 3] = [
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

/// Path in this folder, path of the URL, media type.
const OURS: [(&str, &str, &str); 5] = [
    ("page/index.html", "/docs", "text/html; charset=utf-8"),
    ("page/start.js", "/docs/start.js", "text/javascript; charset=utf-8"),
    ("openapi.json", "/openapi.json", "application/json"),
    ("openapi-3.0.json", "/openapi-3.0.json", "application/json"),
    ("asyncapi.json", "/asyncapi.json", "application/json"),
];

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut table = String::new();
    let mut add = |url: &str, media_type: &str, file: &Path| {
        let content = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let etag = format!("\"{}\"", &hex::encode(Sha256::digest(content))[..32]);
        writeln!(
            table,
            "File {{ url: {url:?}, media_type: {media_type:?}, etag: {etag:?}, content: include_bytes!({file:?}) }},"
        )
        .expect("a text grows");
    };
    for (path, url, media_type) in OURS {
        println!("cargo::rerun-if-changed={path}");
        add(url, media_type, &here.join(path));
    }
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).expect("the crate holds an archive");
    for (name, media_type) in FROM_SWAGGER_UI {
        let wanted = format!("/dist/{name}");
        let path = archive.file_names().flatten().find(|path| path.ends_with(&wanted)).map(Cow::into_owned);
        let path = path.unwrap_or_else(|| panic!("Swagger UI has no {name} any more"));
        let mut content = Vec::new();
        archive.by_name(&path).and_then(|mut file| Ok(file.read_to_end(&mut content)?)).expect("an archive");
        let file = out.join(name);
        fs::write(&file, content).expect("OUT_DIR can be written");
        add(&format!("/docs/{name}"), media_type, &file);
    }
    fs::write(out.join("files.rs"), format!("&[\n{table}]")).expect("OUT_DIR can be written");
}
