//! What the edge answers when traffic does not reach a sandbox: one table, as JSON or as a page.
//!
//! Clients match on statuses and texts: a 502 whose message says `was not found` is a sandbox that is gone,
//! one that says `port is not open` is a closed port. Neither phrase may be used elsewhere. Source: contract
//! network.md §8 and §9, client-versions.md §2.2 rules 9, 12 and 15.

use serde::Serialize;

use crate::host::AddressError;

/// Why traffic does not reach a sandbox. Each variant is a row of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// Nothing listens on the port, or what listens broke off before it answered.
    #[error("The sandbox is running but port is not open")]
    PortClosed {
        /// The sandbox.
        sandbox_id: String,
        /// The port.
        port: u16,
    },
    /// Unknown, killed, or not running.
    #[error("The sandbox was not found")]
    SandboxNotFound {
        /// The sandbox; empty when only an access token named it.
        sandbox_id: String,
    },
    /// As many connections as the sandbox may have.
    #[error("The sandbox has too many concurrent incoming connections (limit: {limit})")]
    TooManyConnections {
        /// The sandbox.
        sandbox_id: String,
        /// How many it may have.
        limit: usize,
    },
    /// A path of the agent that only the control plane may use.
    #[error(
        "This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL"
    )]
    ReservedPath {
        /// The path as sent.
        path: String,
    },
    /// The request does not say properly which sandbox it is for.
    #[error("{0}")]
    Address(AddressError),
    /// A call to an agent that names no sandbox in any way.
    #[error(
        "The request names no sandbox: send E2b-Sandbox-Id and E2b-Sandbox-Port, or use the host <port>-<sandbox ID>.<domain>"
    )]
    NoAddress,
    /// A method that a proxy would have to understand.
    #[error("Method not allowed")]
    MethodNotAllowed,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For programs.
    Json,
    /// For people.
    Html,
}

/// The request headers that decide the [`Format`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// `Accept`.
    pub accept: Option<&'a str>,
    /// `Sec-Fetch-Mode`.
    pub sec_fetch_mode: Option<&'a str>,
    /// Whether `X-Requested-With` is there.
    pub requested_with: bool,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
}

impl Format {
    /// A page if the client looks like a browser that loads one, else JSON.
    pub fn choose(hints: Hints<'_>) -> Self {
        const BROWSERS: [&str; 7] = ["mozilla", "chrome", "safari", "firefox", "edge", "opera", "msie"];
        let accepts = |kind| hints.accept.is_some_and(|accept| accept.contains(kind));
        let mode = hints.sec_fetch_mode.unwrap_or_default();
        if accepts("application/json") && !accepts("text/html")
            || ["cors", "no-cors", "same-origin", "websocket"].contains(&mode)
            || mode != "navigate" && hints.requested_with
        {
            return Self::Json;
        }
        let agent = hints.user_agent.unwrap_or_default().to_ascii_lowercase();
        if BROWSERS.iter().any(|browser| agent.contains(browser)) { Self::Html } else { Self::Json }
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

#[derive(Serialize)]
struct JsonBody<'a> {
    #[serde(rename = "sandboxId", skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<&'a str>,
    message: &'a str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(rename = "connectionLimit", skip_serializing_if = "Option::is_none")]
    connection_limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

impl EdgeError {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::PortClosed { .. } | Self::SandboxNotFound { .. } => 502,
            Self::TooManyConnections { .. } => 429,
            Self::ReservedPath { .. } => 404,
            Self::Address(_) | Self::NoAddress => 400,
            Self::MethodNotAllowed => 405,
        }
    }

    /// Value of `Should-Retry`: whether a client that repeats by itself may.
    ///
    /// Clients repeat every 429 and 502 unless told otherwise; nothing but a full sandbox cures itself, and a
    /// port that broke off may have acted on the request.
    pub fn should_retry(&self) -> bool {
        matches!(self, Self::TooManyConnections { .. })
    }

    /// The answer's body.
    pub fn body(&self, format: Format) -> String {
        match format {
            Format::Json => self.json(),
            Format::Html => self.html(),
        }
    }

    fn json(&self) -> String {
        let message = self.to_string();
        let mut body = JsonBody {
            sandbox_id: None,
            message: &message,
            code: self.status(),
            port: None,
            connection_limit: None,
            path: None,
        };
        match self {
            Self::PortClosed { sandbox_id, port } => {
                body.sandbox_id = Some(sandbox_id);
                body.port = Some(*port);
            }
            Self::SandboxNotFound { sandbox_id } => body.sandbox_id = Some(sandbox_id),
            Self::TooManyConnections { sandbox_id, limit } => {
                body.sandbox_id = Some(sandbox_id);
                body.connection_limit = Some(*limit);
            }
            Self::ReservedPath { path } => body.path = Some(path),
            Self::Address(_) | Self::NoAddress | Self::MethodNotAllowed => {}
        }
        serde_json::to_string(&body).expect("a flat record of texts and numbers is JSON")
    }

    fn html(&self) -> String {
        let (title, facts) = match self {
            Self::PortClosed { sandbox_id, port } => (
                "Port Is Not Open",
                format!(
                    "Sandbox {} is running but there is no service running on port {port}.",
                    escape(sandbox_id)
                ),
            ),
            Self::SandboxNotFound { sandbox_id } => (
                "Sandbox Not Found",
                format!("The sandbox {} was not found. It may have ended.", escape(sandbox_id)),
            ),
            Self::TooManyConnections { .. } => ("Too Many Connections", self.to_string()),
            Self::ReservedPath { path } => ("Reserved Endpoint", format!("{}: {self}", escape(path))),
            Self::Address(_) | Self::NoAddress => ("Bad Address", escape(&self.to_string())),
            Self::MethodNotAllowed => ("Method Not Allowed", self.to_string()),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>body{{font-family:system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em}}</style>\
             </head>\n<body><h1>{title}</h1><p>{facts}</p><p>Status {}</p></body>\n</html>\n",
            self.status()
        )
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: EdgeError, status: u16, json: &str, page: &str) {
        assert_eq!(error.status(), status);
        assert_eq!(error.body(Format::Json), json);
        let html = error.body(Format::Html);
        assert!(html.contains(page), "{page:?} is not in {html}");
    }

    #[test]
    fn a_closed_port() {
        check(
            EdgeError::PortClosed { sandbox_id: "iabc".to_owned(), port: 8080 },
            502,
            r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","code":502,"port":8080}"#,
            "no service running on port 8080",
        );
    }

    #[test]
    fn a_sandbox_that_is_gone() {
        check(
            EdgeError::SandboxNotFound { sandbox_id: "iabc".to_owned() },
            502,
            r#"{"sandboxId":"iabc","message":"The sandbox was not found","code":502}"#,
            "<title>Sandbox Not Found</title>",
        );
    }

    #[test]
    fn a_full_sandbox() {
        let full = EdgeError::TooManyConnections { sandbox_id: "iabc".to_owned(), limit: 3 };
        assert!(full.should_retry());
        check(
            full,
            429,
            r#"{"sandboxId":"iabc","message":"The sandbox has too many concurrent incoming connections (limit: 3)","code":429,"connectionLimit":3}"#,
            "(limit: 3)",
        );
    }

    #[test]
    fn a_reserved_path() {
        check(
            EdgeError::ReservedPath { path: "/<i>".to_owned() },
            404,
            r#"{"message":"This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL","code":404,"path":"/<i>"}"#,
            "/&lt;i&gt;: This endpoint is reserved",
        );
    }

    #[test]
    fn a_bad_address() {
        for (error, text) in [
            (AddressError::MissingHeader, "missing header"),
            (AddressError::InvalidHost, "Invalid host"),
            (AddressError::InvalidSandboxId, "Invalid sandbox ID"),
            (AddressError::InvalidSandboxPort, "Invalid sandbox port"),
        ] {
            check(
                EdgeError::Address(error),
                400,
                &format!(r#"{{"message":"{text}","code":400}}"#),
                &format!("<p>{text}</p>"),
            );
        }
    }

    #[test]
    fn no_address_at_all() {
        check(
            EdgeError::NoAddress,
            400,
            r#"{"message":"The request names no sandbox: send E2b-Sandbox-Id and E2b-Sandbox-Port, or use the host <port>-<sandbox ID>.<domain>","code":400}"#,
            "&lt;port&gt;-&lt;sandbox ID&gt;",
        );
    }

    #[test]
    fn a_method_for_proxies() {
        check(
            EdgeError::MethodNotAllowed,
            405,
            r#"{"message":"Method not allowed","code":405}"#,
            "Method Not Allowed",
        );
    }

    #[test]
    fn pages_are_for_browsers_that_load_one() {
        let firefox = Some("Mozilla/5.0 Firefox/140");
        for (accept, mode, with, agent, want) in [
            (None, None, false, None, Format::Json),
            (None, None, false, Some("curl/8"), Format::Json),
            (None, None, false, Some("e2b-js-sdk/2.51.0"), Format::Json),
            (None, None, false, firefox, Format::Html),
            (None, None, false, Some("OPERA"), Format::Html),
            (Some("text/html"), Some("navigate"), false, firefox, Format::Html),
            (Some("application/json"), Some("navigate"), false, firefox, Format::Json),
            (Some("text/html, application/json"), None, false, firefox, Format::Html),
            (Some("*/*"), Some("cors"), false, firefox, Format::Json),
            (Some("*/*"), Some("no-cors"), false, firefox, Format::Json),
            (Some("*/*"), Some("same-origin"), false, firefox, Format::Json),
            (None, Some("websocket"), false, firefox, Format::Json),
            (Some("*/*"), None, true, firefox, Format::Json),
            (Some("*/*"), Some("navigate"), true, firefox, Format::Html),
            (Some("text/html"), Some("navigate"), false, Some("curl/8"), Format::Json),
        ] {
            let hints = Hints { accept, sec_fetch_mode: mode, requested_with: with, user_agent: agent };
            assert_eq!(Format::choose(hints), want, "{hints:?}");
        }
    }
}
