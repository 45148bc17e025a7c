//! Who answers a request, and what the edge says when nobody can.

use http::Response;

use crate::support::{Answer, DOMAIN, Edge, Guest, empty, full};

/// A guest that says what it saw.
async fn mirror(request: http::Request<hyper::body::Incoming>) -> Response<crate::support::Body> {
    let mut seen = format!("{} {}", request.method(), request.uri());
    for name in ["host", "cookie", "x-sandbar-control", "connection", "x-access-token"] {
        if let Some(value) = request.headers().get(name) {
            seen.push_str(&format!(" {name}={}", value.to_str().unwrap()));
        }
    }
    Response::new(full(seen))
}

#[tokio::test]
async fn what_names_no_sandbox_is_for_the_api() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        for host in
            ["localhost:3000", "api.sbx.localhost:3000", "127.0.0.1", "sbx.localhost", "my-host.example.com"]
        {
            for path in ["/sandboxes", "/health", "/envs", "/metrics", "/init"] {
                assert_eq!(client.get(host, path, &[]).await.text, format!("api GET {path}"), "{host}");
            }
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn host_name_and_headers_lead_to_the_sandbox() {
    let edge = Edge::start().await;
    let guest = Guest::http(mirror).await;
    edge.sandbox("iabc", guest.address);
    let port = guest.port.to_string();
    for mut client in edge.every_client().await {
        for suffix in ["", "-6532622b"] {
            let host = format!("{port}-iabc{suffix}.{DOMAIN}:3000");
            let answer = client.get(&host, "/a%20b?c=d", &[]).await;
            assert_eq!(answer.text, format!("GET /a%20b?c=d host={host} connection=close"));
            assert_eq!(answer.header("connection"), None);
        }
        let headers = [("e2b-sandbox-id", "iabc"), ("e2b-sandbox-port", port.as_str())];
        for host in ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "sandbox.e2b.app", "sbx.localhost"] {
            let answer = client.get(host, "/x", &headers).await;
            assert_eq!(answer.text, format!("GET /x host={host} connection=close"));
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_call_to_the_api_may_carry_the_headers_of_a_sandbox() {
    let edge = Edge::start().await;
    let guest = Guest::agent(mirror).await;
    edge.sandbox("iabc", guest.address);
    let headers = [("e2b-sandbox-id", "iabc"), ("e2b-sandbox-port", "49983"), ("x-api-key", "e2b_0")];
    for mut client in edge.every_client().await {
        for host in ["localhost:3000", "api.sbx.localhost:3000"] {
            let answer = client.get(host, "/sandboxes/iabc", &headers).await;
            assert_eq!(answer.text, "api GET /sandboxes/iabc");
            assert_eq!(client.get(host, "/files", &headers).await.text, format!("GET /files host={host}"));
            assert_eq!(client.get(host, "/init", &headers).await.status, 404);
        }
    }
    edge.stop().await;
}

#[tokio::test]
async fn the_control_header_never_reaches_a_guest() {
    let edge = Edge::start().await;
    let guest = Guest::agent(mirror).await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let answer = client.get(&guest.host("iabc"), "/files", &[("X-Sandbar-Control", "guess")]).await;
        assert_eq!(answer.text, format!("GET /files host=49983-iabc.{DOMAIN}"));
    }
    edge.stop().await;
}

#[tokio::test]
async fn cookies_of_http_2_arrive_in_one_header() {
    let edge = Edge::start().await;
    let guest = Guest::http(mirror).await;
    edge.sandbox("iabc", guest.address);
    let host = guest.host("iabc");
    let answer = edge.http2().await.get(&host, "/", &[("cookie", "a=1"), ("cookie", "b=2")]).await;
    assert_eq!(answer.text, format!("GET / host={host} cookie=a=1; b=2 connection=close"));
    edge.stop().await;
}

#[tokio::test]
async fn old_clients_are_routed_by_access_token() {
    let edge = Edge::start().await;
    let guest = Guest::agent(mirror).await;
    edge.sandbox("iabc", guest.address);
    edge.token("secret", "iabc");
    for mut client in edge.every_client().await {
        let known = [("x-access-token", "secret")];
        for path in
            ["/files?path=x", "/process.Process/Start", "/filesystem.Filesystem/Stat", "/health", "/metrics"]
        {
            let answer = client.get("localhost:3000", path, &known).await;
            assert_eq!(answer.text, format!("GET {path} host=localhost:3000 x-access-token=secret"));
        }
        assert_eq!(client.get("localhost:3000", "/sandboxes", &known).await.text, "api GET /sandboxes");

        let answer = client.get("localhost:3000", "/health", &[("x-access-token", "other")]).await;
        assert_eq!(answer.status, 502);
        assert!(answer.text.contains("was not found"), "{answer:?}");

        let answer = client.get("localhost:3000", "/files?path=x", &[]).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        let body: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(body["code"], 400);
    }
    edge.stop().await;
}

#[tokio::test]
async fn reserved_paths_are_refused_before_the_sandbox_is_looked_up() {
    let edge = Edge::start().await;
    let guest = Guest::agent(mirror).await;
    edge.sandbox("iabc", guest.address);
    let user = Guest::http(mirror).await;
    edge.sandbox("iuser", user.address);
    for mut client in edge.every_client().await {
        for path in ["/init", "//init", "/init/", "/files/../init", "/%69nit", "/freeze", "/upgrade?x=1"] {
            for host in [guest.host("iabc"), guest.host("iunknown"), "049983-iabc.x.y".to_owned()] {
                for method in ["GET", "POST", "OPTIONS"] {
                    let answer = client.call(&host, method, path, &[], empty()).await;
                    assert_eq!(answer.status, 404, "{method} {host}{path}");
                    let body: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
                    assert_eq!(body["path"], path.split('?').next().unwrap());
                    assert_eq!(body["sandboxId"], serde_json::Value::Null);
                }
            }
        }
        // Any other port may serve such a path.
        let answer = client.get(&user.host("iuser"), "/init", &[]).await;
        assert_eq!(answer.status, 200);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_bad_address_is_a_json_error() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        for (host, headers, message) in [
            ("localhost", vec![("e2b-sandbox-id", "iabc")], "missing header"),
            ("localhost", vec![("e2b-sandbox-port", "80")], "missing header"),
            ("www.example.com", vec![("e2b-sandbox-id", "iabc"), ("e2b-sandbox-port", "80")], "Invalid host"),
            ("80-iABC.x.y", vec![], "Invalid sandbox ID"),
            ("99999-iabc.x.y", vec![], "Invalid sandbox port"),
        ] {
            let answer = client.get(host, "/", &headers).await;
            assert_eq!(answer.status, 400);
            assert_eq!(answer.text, format!(r#"{{"message":"{message}","code":400}}"#));
        }
        let long = format!("80-{}.x.y", "i".repeat(64));
        assert_eq!(client.get(&long, "/", &[]).await.text, r#"{"message":"Invalid sandbox ID","code":400}"#);
    }
    edge.stop().await;
}

#[tokio::test]
async fn errors_are_pages_for_browsers_and_json_for_programs() {
    #[track_caller]
    fn is_json(answer: &Answer) {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(answer.header("should-retry"), Some("false"));
        assert_eq!(answer.text, r#"{"sandboxId":"inone","message":"The sandbox was not found","code":502}"#);
    }
    let edge = Edge::start().await;
    let host = format!("8080-inone.{DOMAIN}");
    for mut client in edge.every_client().await {
        is_json(&client.get(&host, "/", &[]).await);
        is_json(&client.call(&host, "POST", "/", &[], full("question")).await);
        let firefox = ("user-agent", "Mozilla/5.0 Firefox/140");
        is_json(&client.get(&host, "/", &[firefox, ("sec-fetch-mode", "cors")]).await);

        let page = client.get(&host, "/", &[firefox, ("accept", "text/html")]).await;
        assert_eq!(page.status, 502);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text.contains("<title>Sandbox Not Found</title>"));

        let head = client.call(&host, "HEAD", "/", &[], empty()).await;
        assert_eq!((head.status, head.text.as_str()), (502, ""));
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
        // The connection is still in step.
        is_json(&client.get(&host, "/", &[]).await);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_head_request_keeps_the_length_it_asks_for() {
    let edge = Edge::start().await;
    let guest = Guest::http(|_| async {
        Response::builder().header("content-length", "12345").body(empty()).unwrap()
    })
    .await;
    edge.sandbox("iabc", guest.address);
    for mut client in edge.every_client().await {
        let answer = client.call(&guest.host("iabc"), "HEAD", "/", &[], empty()).await;
        assert_eq!(answer.header("content-length"), Some("12345"));
        assert_eq!(client.get("localhost", "/x", &[]).await.text, "api GET /x");
    }
    edge.stop().await;
}

#[tokio::test]
async fn an_empty_answer_has_a_length_on_both_versions() {
    let edge = Edge::start().await;
    for mut client in edge.every_client().await {
        let answer = client.get("localhost", "/empty", &[]).await;
        assert_eq!((answer.status, answer.header("content-length")), (202, Some("0")));
    }
    edge.stop().await;
}

#[tokio::test]
async fn proxy_requests_are_refused() {
    let edge = Edge::start().await;
    let mut client = edge.http1().await;
    let answer = client.call("localhost", "CONNECT", "example.com:443", &[], empty()).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (405, r#"{"message":"Method not allowed","code":405}"#)
    );
    edge.stop().await;
}

#[tokio::test]
async fn both_addresses_listen_on_one_port() {
    let edge = Edge::start().await;
    let ports: Vec<u16> = edge.addresses.iter().map(|address| address.port()).collect();
    assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
    for address in &edge.addresses {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = crate::support::Client::http1(stream).await;
        assert_eq!(client.get("localhost", "/x", &[]).await.text, "api GET /x");
    }
    edge.stop().await;
}
