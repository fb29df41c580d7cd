//! The template of the canonical request from which the signer computes signatures
//! ([Signature Version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html)).

/// This header is sent but not signed, because a proxy may change it.
const UNSIGNED_HEADER: &str = "user-agent";

/// The canonical form of requests that differ only in body, time and session token.
#[derive(Debug)]
pub(super) struct CanonicalRequest {
    /// The signed headers, sorted by name.
    headers: Vec<Header>,
    /// The names of the signed headers, without and with that of the session token.
    signed_headers: [String; 2],
}

#[derive(Debug)]
struct Header {
    name: String,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Fixed(String),
    BodyLength,
    Date,
    Token,
}

impl CanonicalRequest {
    /// The canonical form of requests to `uri` with these headers. `None` if `uri` has more than a
    /// scheme, a host and a port.
    pub(super) fn new(uri: &str, headers: &[(String, String)]) -> Option<Self> {
        let host = host_header(uri)?;
        let fixed = headers
            .iter()
            .filter(|(name, _)| name != UNSIGNED_HEADER)
            .map(|(name, value)| (name.as_str(), Value::Fixed(value.clone())));
        let mut headers: Vec<Header> = [
            ("host", Value::Fixed(host.to_owned())),
            ("content-length", Value::BodyLength),
            ("x-amz-date", Value::Date),
            ("x-amz-security-token", Value::Token),
        ]
        .into_iter()
        .chain(fixed)
        .map(|(name, value)| Header { name: name.to_owned(), value })
        .collect();
        headers.sort_by(|one, other| one.name.cmp(&other.name));
        let signed_headers = [false, true].map(|with_token| {
            let names = headers.iter().filter(|header| with_token || !header.is_token());
            names.map(|header| header.name.as_str()).collect::<Vec<_>>().join(";")
        });
        Some(Self { headers, signed_headers })
    }

    /// The names of the signed headers, as in the signature's `SignedHeaders`.
    pub(super) fn signed_headers(&self, with_token: bool) -> &str {
        let [without, with] = &self.signed_headers;
        if with_token { with } else { without }
    }

    /// The text of the canonical request for a body of this length and this SHA-256 in hexadecimal digits.
    pub(super) fn render(
        &self,
        body_bytes: usize,
        date: &str,
        token: Option<&str>,
        body_hash: &str,
    ) -> String {
        let length = body_bytes.to_string();
        let mut request = String::with_capacity(512 + token.map_or(0, str::len));
        request.push_str("POST\n/\n\n");
        for header in &self.headers {
            let value = match &header.value {
                Value::Fixed(value) => value,
                Value::BodyLength => &length,
                Value::Date => date,
                Value::Token => match token {
                    Some(token) => token,
                    None => continue,
                },
            };
            for part in [header.name.as_str(), ":", value, "\n"] {
                request.push_str(part);
            }
        }
        for part in ["\n", self.signed_headers(token.is_some()), "\n", body_hash] {
            request.push_str(part);
        }
        request
    }
}

impl Header {
    fn is_token(&self) -> bool {
        matches!(self.value, Value::Token)
    }
}

/// The value of the `host` header of a request to `uri`. `None` if `uri` has a path, a query or user info.
fn host_header(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = authority.strip_suffix(default_port).unwrap_or(authority);
    (!host.contains(['/', '?', '#', '@'])).then_some(host)
}
