//! Access control: accepts requests of programs on this machine, and refuses those of web pages.
//!
//! A web page in a browser on this machine can reach loopback as well. If a script of another site sends
//! a request that could write, or whose response it could read, the browser adds an `Origin` header. A
//! page whose name resolves to 127.0.0.1 (DNS rebinding) has the same origin and may read without that
//! header, but its requests have that name in their `Host` header. An AWS client sends no `Origin`, and
//! its `Host` is a loopback name.

use std::net::IpAddr;

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Uri};

/// Checks a request. An error says why it is refused.
pub(super) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
    if let Some(origin) = headers.get(ORIGIN) {
        return Err(format!(
            "requests of web pages are refused, and this one has an Origin header ({origin:?})"
        ));
    }
    let mut hosts = headers.get_all(HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => return Err("a request needs one Host header".to_owned()),
    };
    if !is_loopback(named) || uri.authority().is_some_and(|target| !is_loopback(target.as_str())) {
        return Err(format!(
            "the Host header has to be 127.0.0.1, localhost or [::1], with any port, and is `{named}`"
        ));
    }
    Ok(())
}

/// Whether `host`, with or without a port, is a name of this machine alone.
fn is_loopback(host: &str) -> bool {
    let Ok(parsed) = host.parse::<Uri>() else {
        return false;
    };
    let Some(name) = parsed.host().filter(|_| !host.contains(['@', '/'])) else {
        return false;
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| name.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn loopback_hosts_are_accepted_with_any_port() {
        for host in ["127.0.0.1:8000", "127.0.0.1", "localhost:1", "LocalHost", "[::1]:80", "[::1]"]
        {
            assert_eq!(
                check(&Uri::from_static("/"), &headers(&[("host", host)])),
                Ok(()),
                "{host}"
            );
        }
    }

    #[test]
    fn other_hosts_are_refused() {
        for host in [
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8000",
            "evil.example@localhost",
            "10.0.0.1:8000",
            "[fe80::1]:8000",
            "localhost/",
            "",
        ] {
            let refused = check(&Uri::from_static("/"), &headers(&[("host", host)]));
            assert!(refused.is_err(), "{host}");
        }
    }

    #[test]
    fn exactly_one_loopback_host_is_required() {
        let loopback = [("host", "localhost")];
        assert!(check(&Uri::from_static("/"), &headers(&[])).is_err());
        assert!(check(&Uri::from_static("/"), &headers(&[loopback[0]; 2])).is_err());
        assert!(check(&Uri::from_static("http://evil.example/"), &headers(&loopback)).is_err());
        assert_eq!(check(&Uri::from_static("http://localhost:80/"), &headers(&loopback)), Ok(()));
    }

    #[test]
    fn every_origin_is_refused() {
        for origin in ["https://evil.example", "null", "http://localhost:3000"] {
            let headers = headers(&[("host", "localhost"), ("origin", origin)]);
            assert!(check(&Uri::from_static("/"), &headers).is_err(), "{origin}");
        }
    }
}
