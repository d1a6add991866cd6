//! The UI's files, in memory once: whoever asks for many of them and takes none holds neither files nor copies.

use std::{collections::BTreeMap, io, path::Path};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use rackhand_functions::ui;
use tower::{Layer as _, ServiceExt as _};
use tower_http::{compression::CompressionLayer, services::ServeDir};

/// By their address, such as `/assets/a-1.js`.
pub struct Files(BTreeMap<String, File>);

struct File {
    plain: Form,
    /// Where that is shorter.
    gzip: Option<Form>,
}

/// One way to send a file.
struct Form {
    headers: HeaderMap,
    bytes: Bytes,
}

impl Files {
    /// # Errors
    /// When a folder or file cannot be read.
    pub async fn read(folder: &Path) -> io::Result<Self> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
                let address = name.map(|name| format!("/{name}"));
                if let Some(address) = address.filter(|address| address.parse::<PathAndQuery>().is_ok()) {
                    let plain = form(folder, &address, "identity").await?;
                    let gzip = form(folder, &address, "gzip").await?;
                    let shorter = gzip.bytes.len() < plain.bytes.len();
                    files.insert(address, File { plain, gzip: shorter.then_some(gzip) });
                }
            }
        }
        Ok(Self(files))
    }

    /// A file; an address of the app itself gets the app, which knows its own pages.
    pub fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let path = request.uri().path();
        let file = self.0.get(ui::file(path));
        let mut response = match file {
            Some(file) => file.answer(request),
            None => StatusCode::NOT_FOUND.into_response(),
        };
        response.headers_mut().extend(ui::headers(path, file.is_some()));
        response
    }
}

impl File {
    fn answer(&self, request: &Request) -> Response {
        let asked = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let takes_gzip = asked(header::ACCEPT_ENCODING).is_some_and(|accepted| {
            accepted.split(',').any(|one| {
                let (coding, weight) = one.split_once(';').unwrap_or((one, ""));
                coding.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
            })
        });
        let form = self.gzip.as_ref().filter(|_| takes_gzip).unwrap_or(&self.plain);
        let unchanged = form.headers.get(header::LAST_MODIFIED).and_then(|value| value.to_str().ok());
        let is_known = unchanged.is_some() && asked(header::IF_MODIFIED_SINCE) == unchanged;
        let body = match *request.method() {
            Method::GET if !is_known => Body::from(form.bytes.clone()),
            _ => Body::empty(),
        };
        let mut response = Response::new(body);
        *response.headers_mut() = form.headers.clone();
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    }
}

async fn form(folder: &Path, address: &str, coding: &str) -> io::Result<Form> {
    let request = Request::builder().uri(address).header(header::ACCEPT_ENCODING, coding).body(Body::empty());
    let files = CompressionLayer::new().layer(ServeDir::new(folder));
    let answer =
        files.oneshot(request.map_err(io::Error::other)?).await.unwrap_or_else(|never| match never {});
    if !answer.status().is_success() {
        return Err(io::Error::other(format!("{address} cannot be read")));
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = body.collect().await.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
    parts.headers.remove(header::ACCEPT_RANGES);
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    Ok(Form { headers: parts.headers, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(files: &Files, path: &str, headers: &[(header::HeaderName, &str)]) -> Response<Bytes> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = files.answer(&request.body(Body::empty()).unwrap());
        assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn pages_get_the_app_and_files_themselves() {
        let dir = std::env::temp_dir().join(format!("rackhand-ui-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("assets")).unwrap();
        std::fs::write(dir.join("index.html"), "<app>").unwrap();
        std::fs::write(dir.join("assets/a-1.js"), "js".repeat(1000)).unwrap();
        let files = Files::read(&dir).await.unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        let page = get(&files, "/", &[]).await;
        assert_eq!(
            (page.status(), page.headers()[header::CACHE_CONTROL].as_bytes()),
            (StatusCode::OK, &b"no-cache"[..])
        );
        assert_eq!(page.body(), "<app>");
        assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html");
        assert_eq!(get(&files, "/jobs/1?x=y", &[]).await.body(), "<app>");
        let known = page.headers()[header::LAST_MODIFIED].to_str().unwrap();
        let unchanged = get(&files, "/", &[(header::IF_MODIFIED_SINCE, known)]).await;
        assert_eq!((unchanged.status(), unchanged.body().len()), (StatusCode::NOT_MODIFIED, 0));
        let script = get(&files, "/assets/a-1.js", &[]).await;
        assert!(script.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        assert_eq!(
            (script.body().len(), &script.headers()[header::CONTENT_LENGTH]),
            (2000, &"2000".parse().unwrap())
        );
        let short = get(&files, "/assets/a-1.js", &[(header::ACCEPT_ENCODING, "br, gzip")]).await;
        assert_eq!(short.headers()[header::CONTENT_ENCODING], "gzip");
        assert!(short.body().len() < 100);
        let refused = get(&files, "/assets/a-1.js", &[(header::ACCEPT_ENCODING, "gzip;q=0")]).await;
        assert_eq!(refused.body().len(), 2000);
        for gone in ["/assets/gone.js", "/../../etc/passwd.x"] {
            assert_eq!(get(&files, gone, &[]).await.status(), StatusCode::NOT_FOUND);
        }
    }
}
