//! Which requests a path takes: from whom, for which host, from which page. Each path says
//! it with its [`Access`].

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::gate::{Caller, Denied, Gate, seconds};
use super::hosts::is_from_own_page;
use super::http::Peer;
use super::identity::Role;

/// Who may ask for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, and for any host: it tells whether the process works, and no more.
    Probe,
    /// Everybody: it is needed to sign in.
    Open,
    /// Whoever has this role, or one above it.
    Needs(Role),
}

/// Passes a request on if it may be, with its [`Caller`] where the path needs a role.
pub(super) async fn admit(
    State((gate, access)): State<(Arc<Gate>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    if access == Access::Probe {
        return next.run(request).await;
    }
    if !gate.hosts.allow(request.uri(), request.headers()) {
        let why = "this host is not served: ask by an address or by localhost, or add its name to ops_hosts";
        return refuse(StatusCode::MISDIRECTED_REQUEST, why);
    }
    let only_looks = [Method::GET, Method::HEAD].contains(request.method());
    if !only_looks && !is_from_own_page(request.headers()) {
        return refuse(StatusCode::FORBIDDEN, "the request was sent by a page of another origin");
    }
    if let Access::Needs(role) = access {
        let peer = *request.extensions().get::<Peer>().expect("each request has its peer");
        let is_page = request.uri().path() == "/";
        // A copy, since the body of a request cannot be shared between threads.
        match let_in(&gate, role, peer, is_page, request.headers().clone()).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(refusal) => return refusal,
        };
    }
    next.run(request).await
}

/// Returns who is asking, or the response if they may not.
async fn let_in(
    gate: &Gate,
    needed: Role,
    peer: Peer,
    is_page: bool,
    headers: HeaderMap,
) -> Result<Caller, Response> {
    match gate.identify(peer, &headers).await {
        Ok(caller) if caller.role >= needed => Ok(caller),
        Ok(Caller { role, .. }) => Err(refuse(StatusCode::FORBIDDEN, &forbidden(role, needed))),
        // Whoever presents a token, and be it a bad one, is not sent to the form. Another scheme
        // is none: a proxy may pass its own on.
        Err(Denied::NotSignedIn) if is_page => Err(see_other("sign-in")),
        Err(denied) => Err(denied.into_response()),
    }
}

fn forbidden(role: Role, needed: Role) -> String {
    format!("the role {role} may not see this: it takes the role {needed}")
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (code, why) = (self.code(), self.to_string());
        match self {
            Self::NotSignedIn | Self::BadToken => {
                ([(WWW_AUTHENTICATE, "Bearer")], refuse(code, &why)).into_response()
            }
            Self::TooManyFailures(wait) => {
                ([(RETRY_AFTER, seconds(wait).to_string())], refuse(code, &why)).into_response()
            }
            Self::Unavailable => refuse(code, &why),
        }
    }
}

impl Denied {
    /// Returns the status of the response.
    pub(super) fn code(self) -> StatusCode {
        match self {
            Self::NotSignedIn | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::TooManyFailures(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Sends a browser to another path. It is relative, so that it also works below a path of a
/// proxy.
pub(super) fn see_other(path: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// Returns an error as JSON.
pub(super) fn refuse(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({ "error": why }))).into_response()
}
