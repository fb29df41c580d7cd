//! The canonical form of requests that differ in their body and their time, and in nothing else
//! ([Signature Version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html)).

/// Sent, and not signed: a proxy may change it.
const UNSIGNED: &str = "user-agent";

/// A canonical request with gaps for what is different in each.
#[derive(Debug)]
pub(super) struct CanonicalRequest {
    /// The signed headers, in the order of their names.
    headers: Vec<Header>,
    /// Names of the signed headers, without a session token's and with it.
    names: [String; 2],
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
    /// Of requests to this address with these headers. `None` for an address with a path.
    pub(super) fn of(uri: &str, headers: &[(String, String)]) -> Option<Self> {
        let host = host(uri)?;
        let fixed = headers
            .iter()
            .filter(|(name, _)| name != UNSIGNED)
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
        let names = [false, true].map(|with_token| {
            let names = headers.iter().filter(|header| with_token || !header.is_token());
            names.map(|header| header.name.as_str()).collect::<Vec<_>>().join(";")
        });
        Some(Self { headers, names })
    }

    /// Names of the signed headers.
    pub(super) fn names(&self, with_token: bool) -> &str {
        let [without, with] = &self.names;
        if with_token { with } else { without }
    }

    /// The canonical request with a body of this length and SHA-256.
    pub(super) fn fill(
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
        for part in ["\n", self.names(token.is_some()), "\n", body_hash] {
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

/// What the `host` header of a request to `uri` says, which has no path.
fn host(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let host = authority.strip_suffix(default_port).unwrap_or(authority);
    (!host.contains(['/', '?', '#', '@'])).then_some(host)
}
