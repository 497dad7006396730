//! Which names a request may be for, and from which pages one may be sent.
//!
//! A page of somebody else may let its own name lead to this server's address (DNS
//! rebinding), and the browser then lets it read the responses. It cannot change the name
//! that the browser sends, so only known names are served. An address in place of a name
//! cannot be rebound.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Uri};

/// Tells how the page that sends a request is related to us; only a browser sets it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names that are served beside `localhost` and addresses.
#[derive(Debug)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// Takes the names, in lower case.
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Returns whether a request is for a host that is served. One that names none, as
    /// HTTP/1.0 may, is: browsers always do.
    pub(super) fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let all: Vec<&str> = named.chain(uri.authority().map(|authority| authority.as_str())).collect();
        headers.get_all(HOST).iter().count() <= 1 && all.into_iter().all(|host| self.allows(host))
    }

    fn allows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        name == "localhost" || is_address(&name) || self.0.contains(&name)
    }
}

/// Returns whether a request may change something: none may that a page of another origin
/// sends. A request that says nothing of its origin is from no browser.
pub(super) fn is_from_own_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let (origin, host) = (origin.to_str().unwrap_or_default(), headers.get(HOST));
    let origin = origin.split_once("://").map(|(_, authority)| authority);
    host.and_then(|host| host.to_str().ok())
        .zip(origin)
        .is_some_and(|(host, origin)| host.eq_ignore_ascii_case(origin))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_address(name: &str) -> bool {
    let in_brackets = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match in_brackets {
        Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn addresses_localhost_and_known_names_are_served_and_no_others() {
        let hosts = Hosts::new(vec!["lottery.example".to_owned()]);
        let allow = |host: &str| hosts.allow(&Uri::from_static("/"), &headers(&[(HOST, host)]));
        for host in [
            "127.0.0.1",
            "10.0.0.1:9090",
            "[::1]",
            "[2001:db8::1]:9090",
            "localhost:1",
            "Lottery.Example:443",
        ] {
            assert!(allow(host), "{host}");
        }
        for host in [
            "",
            ":9090",
            "evil.example",
            "lottery.example.evil.example",
            "x.lottery.example",
            "lottery.example.",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "lottery.example:9090:1",
            "user@localhost",
            "::1",
            "[::1].evil.example",
            "[lottery.example]",
            "localhost:evil",
            "0x7f.1",
        ] {
            assert!(!allow(host), "{host}");
        }
        assert!(hosts.allow(&Uri::from_static("/"), &headers(&[])), "HTTP/1.0");
        assert!(!hosts.allow(&Uri::from_static("/"), &headers(&[(HOST, "localhost"), (HOST, "localhost")])));
        let whole = |uri| hosts.allow(&Uri::from_static(uri), &headers(&[(HOST, "localhost")]));
        assert!(whole("http://localhost/") && !whole("http://evil.example/"));
    }

    #[test]
    fn only_a_page_of_ours_may_change_something() {
        let from = |all: &[(HeaderName, &str)]| is_from_own_page(&headers(all));
        let host = (HOST, "localhost:9090");
        assert!(from(std::slice::from_ref(&host)), "curl");
        for (origin, is_own) in [
            ("http://localhost:9090", true),
            ("https://LOCALHOST:9090", true),
            ("http://localhost:9091", false),
            ("http://evil.example", false),
            ("http://localhost:9090.evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(from(&[host.clone(), (ORIGIN, origin)]), is_own, "{origin}");
        }
        for (site, is_own) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            assert_eq!(from(&[host.clone(), (SEC_FETCH_SITE, site)]), is_own, "{site}");
        }
    }
}
