//! The site's file server: `GET /packages/<file name>` over plain HTTP, as a rollout's image server would be.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;

pub(super) async fn run(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    serve_plain(listener, stop, move |request| {
        let response = answer(&shared, &request);
        async move { response }
    })
    .await;
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let found = request
        .uri()
        .path()
        .strip_prefix("/packages/")
        .and_then(|name| shared.package(name))
        .map(|package| package.bytes.clone());
    let (status, body) = match (request.method(), found) {
        (&Method::GET | &Method::HEAD, Some(bytes)) => (StatusCode::OK, bytes),
        (&Method::GET | &Method::HEAD, None) => (StatusCode::NOT_FOUND, Bytes::new()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// Serves plain HTTP until told to stop; open connections are dropped then.
pub(super) async fn serve_plain<F, R>(listener: TcpListener, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        connections.spawn(one(stream, stop.clone(), answer.clone()));
    }
    connections.close();
    connections.wait().await;
}

async fn one<F, R>(stream: TcpStream, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a plain connection ended early");
        }
    }
}
