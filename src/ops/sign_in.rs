//! Signing in and out with a browser: a form for the token, and a cookie for the session
//! that it begins. No script is needed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::timeout;

use super::admit::{refuse, see_other};
use super::forms::{Form, Forms};
use super::gate::{COOKIE_NAME, Denied, Gate, seconds};
use super::http::Peer;

/// How long the body of a sign-in may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of it: a token has 88.
const BODY_BYTES_MAX: usize = 1 << 10;

/// The page, with the places of its texts.
const PAGE: &str = include_str!("page/sign-in.html");

/// The texts of the page in one language.
struct Texts {
    language: &'static str,
    heading: &'static str,
    label: &'static str,
    hint: &'static str,
    button: &'static str,
    bad_token: &'static str,
    too_many: &'static str,
    unavailable: &'static str,
}

const ENGLISH: Texts = Texts {
    language: "en",
    heading: "Sign in",
    label: "Token",
    hint: "An operator's token, as <code>sorteo token add --role</code> prints it.",
    button: "Sign in",
    bad_token: "The token is not valid.",
    too_many: "Too many tokens from this address were not valid. Try again in {seconds} s.",
    unavailable: "The server could not check the token. Try again.",
};

const SPANISH: Texts = Texts {
    language: "es",
    heading: "Iniciar sesión",
    label: "Token",
    hint: "El token de un operador, tal como lo escribe <code>sorteo token add --role</code>.",
    button: "Iniciar sesión",
    bad_token: "El token no es válido.",
    too_many: "Demasiados tokens de esta dirección no eran válidos. Reintente en {seconds} s.",
    unavailable: "El servidor no pudo verificar el token. Reintente.",
};

/// What the form has.
#[derive(Deserialize)]
struct Fields {
    token: String,
}

/// Shows the form, where one is needed.
pub(super) async fn show(
    State(gate): State<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    match gate.is_closed_to(peer) {
        true => page(StatusCode::OK, Texts::of(&headers), String::new()),
        false => see_other("./"),
    }
}

/// Begins a session and shows the page, or the form again.
pub(super) async fn sign_in(
    State(gate): State<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    Extension(forms): Extension<Arc<Forms>>,
    request: Request,
) -> Response {
    let Peer::Address { ip, is_encrypted } = peer else { return see_other("./") };
    if !gate.is_closed_to(peer) {
        return see_other("./");
    }
    let form = forms.begin(ip.into());
    tokio::select! {
        biased;
        response = take(&form, &gate, ip, is_encrypted, request) => response,
        () = form.is_displaced() => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "too many sign-ins at once: try again later")
        }
    }
}

/// Reads the token of a form, and begins a session if it is valid.
async fn take(form: &Form, gate: &Gate, ip: IpAddr, is_encrypted: bool, request: Request) -> Response {
    let texts = Texts::of(request.headers());
    let token = match timeout(BODY_TIMEOUT, read_token(request.into_body())).await {
        Ok(Some(token)) => token,
        Ok(None) => return refuse(StatusCode::BAD_REQUEST, "the form has no token, or is too long"),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the form took too long"),
    };
    form.set_whole();
    match gate.sign_in(ip, token.trim()).await {
        Ok(id) => ([(SET_COOKIE, cookie(&id, is_encrypted))], see_other("./")).into_response(),
        Err(denied) => again(denied, texts),
    }
}

/// Ends the session, and shows the form.
pub(super) async fn sign_out(State(gate): State<Arc<Gate>>, headers: HeaderMap) -> Response {
    gate.sign_out(&headers);
    let ended = format!("{COOKIE_NAME}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    ([(SET_COOKIE, ended)], see_other("sign-in")).into_response()
}

async fn read_token(body: Body) -> Option<String> {
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.ok()?;
    // A form is encoded as the query of an address is.
    let query = format!("/?{}", std::str::from_utf8(&bytes).ok()?).parse::<Uri>().ok()?;
    Query::<Fields>::try_from_uri(&query).ok().map(|Query(form)| form.token)
}

/// Returns the cookie of a session, which ends at the latest with the browser.
fn cookie(id: &str, is_encrypted: bool) -> String {
    let secure = if is_encrypted { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={id}; HttpOnly; SameSite=Strict; Path=/{secure}")
}

/// Shows the form again, with what went wrong.
fn again(denied: Denied, texts: &Texts) -> Response {
    let (line, wait) = match denied {
        Denied::NotSignedIn | Denied::BadToken => (texts.bad_token, None),
        Denied::TooManyFailures(wait) => (texts.too_many, Some(seconds(wait).to_string())),
        Denied::Unavailable => (texts.unavailable, None),
    };
    let line = line.replace("{seconds}", wait.as_deref().unwrap_or_default());
    let mut response = page(denied.code(), texts, line);
    let headers = response.headers_mut();
    if denied.code() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, "Bearer".parse().expect("a value"));
    }
    if let Some(wait) = wait {
        headers.insert(RETRY_AFTER, wait.parse().expect("digits"));
    }
    response
}

fn page(code: StatusCode, texts: &Texts, failed: String) -> Response {
    let hidden = if failed.is_empty() { "hidden" } else { "" };
    let body = [
        ("{{language}}", texts.language),
        ("{{heading}}", texts.heading),
        ("{{label}}", texts.label),
        ("{{hint}}", texts.hint),
        ("{{button}}", texts.button),
        ("{{hidden}}", hidden),
        ("{{failed}}", &failed),
    ]
    .into_iter()
    .fold(PAGE.to_owned(), |page, (place, text)| page.replace(place, text));
    let about = [(CONTENT_TYPE, "text/html; charset=utf-8"), (VARY, "Accept-Language")];
    (code, about, body).into_response()
}

impl Texts {
    /// Returns the first language of the browser's that the page speaks.
    fn of(headers: &HeaderMap) -> &'static Self {
        let wanted = headers.get(ACCEPT_LANGUAGE).and_then(|languages| languages.to_str().ok());
        let tags = wanted.unwrap_or_default().split(',').map(|tag| tag.trim().to_ascii_lowercase());
        let spoken = [&ENGLISH, &SPANISH];
        let found = tags.filter_map(|tag| spoken.into_iter().find(|texts| tag.starts_with(texts.language)));
        found.into_iter().next().unwrap_or(&ENGLISH)
    }
}
