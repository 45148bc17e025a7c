//! Headers that mean one connection only, and what must change between two connections.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request;
use http::uri::Authority;
use http::{Uri, Version};
use sandbar_wire::envd::control::CONTROL_HEADER;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CONTROL: HeaderName = HeaderName::from_static(CONTROL_HEADER);

/// What a request needs of the connection to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// It stays usable afterwards.
    Reuse,
    /// It ends with the answer.
    Once,
    /// It is handed over to another protocol if the guest agrees.
    Upgrade,
}

/// Whether a body follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// None.
    Empty,
    /// Some; how long is in `Content-Length`, or unknown.
    Follows,
}

/// Turns a client's request into one for the guest.
pub(crate) fn for_guest(head: &mut request::Parts, hop: Hop, payload: Payload) {
    let upgrade = (hop == Hop::Upgrade).then(|| head.headers.get(UPGRADE).cloned()).flatten();
    let trailers = head.headers.get_all(TE).iter().any(|value| value.as_bytes().starts_with(b"trailers"));
    strip(&mut head.headers);
    // Only the host may speak to the agent's control routes; see ARCHITECTURE.md.
    head.headers.remove(CONTROL);

    // HTTP/2 and proxies name the host in the request's target.
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(host_and_port(authority))
    {
        head.headers.insert(HOST, host);
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    head.uri = head.uri.path_and_query().map(|path| Uri::from(path.clone())).unwrap_or_default();
    head.version = Version::HTTP_11;

    if trailers {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // Said explicitly, because a body of unknown length is unusual enough with GET to be dropped otherwise.
    if payload == Payload::Follows && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    match (hop, upgrade) {
        (Hop::Upgrade, Some(protocol)) => {
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, protocol);
        }
        (Hop::Once, _) => {
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        (Hop::Reuse | Hop::Upgrade, _) => {}
    }
}

/// The authority without credentials.
pub(crate) fn host_and_port(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

/// Removes from a guest's answer what concerned the connection to the guest.
pub(crate) fn for_client(headers: &mut HeaderMap) {
    strip(headers);
}

/// Removes from a guest's agreement to an upgrade what concerned its connection, and keeps the agreement.
pub(crate) fn for_upgraded_client(headers: &mut HeaderMap) {
    let upgrade = headers.get(UPGRADE).cloned();
    strip(headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Whether the client asks to speak another protocol on this connection.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && connection_options(headers).any(|name| name == UPGRADE)
}

/// Source: RFC 9110 §7.6.1. `Trailer` stays: it announces what follows the body, which is passed on.
fn strip(headers: &mut HeaderMap) {
    // Named ones first: `Connection` itself goes too.
    let named: Vec<HeaderName> = connection_options(headers).collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> + '_ {
    // What frames the message or routes it is never for one connection only, whatever a client says.
    const KEPT: [HeaderName; 2] = [HOST, CONTENT_LENGTH];
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .filter(|name| !KEPT.contains(name))
}

/// HTTP/2 clients may send a header field for each cookie; HTTP/1.1 has one. Source: RFC 9113 §8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Lines are `name: value`; the answer is sorted.
    #[track_caller]
    fn check(version: Version, uri: &str, hop: Hop, payload: Payload, sent: &[&str], want: &[&str]) {
        let mut request = Request::builder().version(version).uri(uri);
        for line in sent {
            let (name, value) = line.split_once(": ").expect("a header line");
            request = request.header(name, value);
        }
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        for_guest(&mut head, hop, payload);
        assert_eq!(head.version, Version::HTTP_11);
        let mut got: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        got.sort();
        got.insert(0, head.uri.to_string());
        assert_eq!(got, want);
    }

    #[test]
    fn what_concerns_one_connection_is_removed() {
        check(
            Version::HTTP_11,
            "/a?b=c",
            Hop::Reuse,
            Payload::Empty,
            &[
                "host: x:1",
                "connection: keep-alive, X-Private",
                "connection: Host, content-length",
                "x-private: 1",
                "keep-alive: 5",
                "proxy-authorization: secret",
                "upgrade: h2c",
                "te: deflate",
                "x-sandbar-control: guess",
                "content-length: 0",
                "trailer: x-sum",
                "x-access-token: t",
            ],
            &["/a?b=c", "content-length: 0", "host: x:1", "trailer: x-sum", "x-access-token: t"],
        );
    }

    #[test]
    fn http_2_becomes_http_1() {
        check(
            Version::HTTP_2,
            "https://8080-i.x:3000/a",
            Hop::Once,
            Payload::Follows,
            &["cookie: a=1", "cookie: b=2", "te: trailers"],
            &[
                "/a",
                "connection: close",
                "cookie: a=1; b=2",
                "host: 8080-i.x:3000",
                "te: trailers",
                "transfer-encoding: chunked",
            ],
        );
    }

    #[test]
    fn an_upgrade_is_passed_on_only_where_it_may_be() {
        let sent = &["host: x", "connection: Upgrade", "upgrade: websocket"];
        check(
            Version::HTTP_11,
            "/",
            Hop::Upgrade,
            Payload::Empty,
            sent,
            &["/", "connection: upgrade", "host: x", "upgrade: websocket"],
        );
        check(Version::HTTP_11, "/", Hop::Reuse, Payload::Empty, sent, &["/", "host: x"]);
    }

    #[test]
    fn a_target_with_a_host_outdoes_the_header_and_loses_its_credentials() {
        check(
            Version::HTTP_11,
            "http://me:secret@8080-i.x/a",
            Hop::Reuse,
            Payload::Empty,
            &["host: other"],
            &["/a", "host: 8080-i.x"],
        );
    }
}
