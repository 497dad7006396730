//! The connections of the operators' HTTP: how many there may be, how long each may take,
//! whose they are, and the headers of every response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Response};
use axum::middleware::{Next, from_fn};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::forms::SIGN_INS_MAX;
use super::places::{Place, Places};
use super::tls::{HANDSHAKES_AT_ONCE, Opened, Opener, OpsTls};
use crate::event;
use crate::server::listen::canonical;

/// Most connections at once. Each open page has one.
pub(super) const CONNECTIONS_MAX: usize = 256;
const _: () = assert!(HANDSHAKES_AT_ONCE.get() as usize >= CONNECTIONS_MAX, "all may connect again at once");
/// Most requests in progress at once, apart from sign-ins, probes and scrapes.
pub(super) const REQUESTS_MAX: usize = 192;
/// Places that all those requests and sign-ins leave to probes and scrapes.
const PROBES_MIN: usize = 48;
const _: () = assert!(REQUESTS_MAX + SIGN_INS_MAX + PROBES_MIN <= CONNECTIONS_MAX, "probes need places");
/// How long the head of a request may take to arrive whole, and how long a connection may
/// be kept without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a request's head, and of what is read ahead.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a peer may take nothing of its response before the connection is closed.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused to accept: to try again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The page loads our own files only, and has no frames. Its forms come back to us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The headers of every response that does not set them itself.
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Without any, a browser would not tell from which page a form comes.
    (REFERRER_POLICY, "same-origin"),
    (CACHE_CONTROL, "no-store"),
];

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Whose a connection is: an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// A process that may open the Unix socket.
    Socket,
    /// Whoever reaches the port.
    Address { ip: IpAddr, is_encrypted: bool },
}

/// Accepts connections and responds to them, for ever.
pub(super) async fn serve(listeners: Vec<Listener>, router: Router, tls: Option<OpsTls>) {
    let router = router.layer(from_fn(add_headers));
    let (places, opener) = (Places::new(CONNECTIONS_MAX), Arc::new(Opener::new(tls)));
    let mut all = JoinSet::new();
    for listener in listeners {
        all.spawn(accept(listener, router.clone(), Arc::clone(&opener), Arc::clone(&places)));
    }
    while all.join_next().await.is_some() {}
}

async fn accept(listener: Listener, router: Router, opener: Arc<Opener>, places: Arc<Places>) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, address)| Accepted::Tcp(stream, canonical(address).ip())),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        };
        match accepted {
            Ok(accepted) => {
                let place = places.take().await;
                tokio::spawn(keep(accepted, router.clone(), Arc::clone(&opener), place));
            }
            Err(error) => {
                event!(Error, "accept_operators", Fail, error = error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A new connection.
enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Serves a connection until it ends, or another one needs its place.
async fn keep(accepted: Accepted, router: Router, opener: Arc<Opener>, place: Arc<Place>) {
    let served = async {
        match accepted {
            Accepted::Tcp(stream, ip) => serve_tcp(stream, ip, router, &opener, &place).await,
            Accepted::Unix(stream) => respond(stream, Peer::Socket, router, &place).await,
        }
    };
    tokio::select! {
        () = served => {}
        () = place.is_needed() => log_closed("another connection needs the place"),
    }
}

async fn serve_tcp(stream: TcpStream, ip: IpAddr, router: Router, opener: &Opener, place: &Arc<Place>) {
    // A system without this option has a longer timeout of its own.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    let _ = stream.set_nodelay(true);
    match opener.open(stream, ip).await {
        Ok(Opened::Plain(stream)) => {
            respond(stream, Peer::Address { ip, is_encrypted: false }, router, place).await;
        }
        Ok(Opened::Encrypted(stream)) => {
            respond(*stream, Peer::Address { ip, is_encrypted: true }, router, place).await;
        }
        Err(error) => log_closed(error),
    }
}

/// Responds to the requests of a connection.
async fn respond<IO>(stream: IO, peer: Peer, router: Router, place: &Arc<Place>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let router = TowerToHyperService::new(router);
    let requests = service_fn(|mut request: hyper::Request<_>| {
        let (router, place) = (router.clone(), Arc::clone(place));
        request.extensions_mut().insert(peer);
        async move {
            place.set_busy();
            let response = router.call(request).await?;
            if !is_stream(&response) {
                place.set_idle();
            }
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        // A peer may close its side after its request, and reads the response.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), requests);
    if let Err(error) = served.await {
        // The peer went away, was too slow or does not speak HTTP.
        log_closed(error);
    }
}

fn log_closed(error: impl std::fmt::Display) {
    event!(Debug, "close_operators_connection", Fail, error = error);
}

/// Returns whether a response goes on for as long as the peer reads it.
fn is_stream<B>(response: &Response<B>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|form| form == "text/event-stream")
}

async fn add_headers(request: Request, next: Next) -> Result<Response<axum::body::Body>, Infallible> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    Ok(response)
}
