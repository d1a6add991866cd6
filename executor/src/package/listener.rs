//! Serves checked packages to BMCs that fetch them by themselves (SimpleUpdate).
//!
//! The only port an executor opens, towards BMCs and only when the policy names an address. A package stands
//! under 128 random bits, from memory, as long as its run needs it; everything else is 404. GET and HEAD, and
//! no ranges, which RFC 9110 §14 lets a server ignore.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

use super::{Offer, PackageError, Publisher, random_token};

/// Downloads at once; a further connection waits.
const CONNECTIONS: usize = 64;

type Shelf = Arc<Mutex<BTreeMap<String, Bytes>>>;

pub struct Listener {
    base: String,
    shelf: Shelf,
    task: JoinHandle<()>,
}

struct Offered {
    path: String,
    url: String,
    shelf: Shelf,
}

impl Listener {
    /// Listens on `address`; `base` is what BMCs are told instead of it.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, base: Option<&str>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let base = match base {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => format!("http://{}", listener.local_addr()?),
        };
        let shelf = Shelf::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&shelf)));
        Ok(Self { base, shelf, task })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher for Listener {
    fn offer(&self, file_name: &str, bytes: Bytes) -> Result<Box<dyn Offer>, PackageError> {
        let token = random_token().map_err(|error| PackageError::Unreachable(error.to_string()))?;
        let path = format!("/{token}/{file_name}");
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), bytes);
        let url = format!("{}{path}", self.base);
        Ok(Box::new(Offered { path, url, shelf: Arc::clone(&self.shelf) }))
    }
}

impl Offer for Offered {
    fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

async fn serve(listener: TcpListener, shelf: Shelf) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shelf = Arc::clone(&shelf);
        tasks.spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let answer = answer(&shelf, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A BMC that hangs up is its own business; the device job tells how it went.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(shelf: &Shelf, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let found = shelf.lock().unwrap_or_else(PoisonError::into_inner).get(request.uri().path()).cloned();
    let (status, body) = match (request.method(), found) {
        (&Method::GET | &Method::HEAD, Some(bytes)) => (StatusCode::OK, bytes),
        (&Method::GET | &Method::HEAD, None) => (StatusCode::NOT_FOUND, Bytes::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
    };
    let length = body.len();
    // hyper leaves the body of an answer to HEAD out and keeps its length.
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_package_is_there_as_long_as_its_offer() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let offer = listener.offer("BIOS.EXE", Bytes::from_static(b"firmware")).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::cloud::http::tls().unwrap())
            .build()
            .unwrap();
        let url = offer.url().to_owned();
        assert!(url.ends_with("/BIOS.EXE") && url.len() > 50, "{url}");
        assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap(), "firmware");
        let head = client.head(&url).send().await.unwrap();
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "8");
        assert_eq!(client.post(&url).send().await.unwrap().status(), 405);
        drop(offer);
        assert_eq!(client.get(&url).send().await.unwrap().status(), 404);
    }
}
