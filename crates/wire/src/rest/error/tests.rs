//! One test per row: what clients match on must not change by accident.

use super::{ApiError, Retry};

/// `status | error code or - | retry | text`.
#[track_caller]
fn check(error: ApiError, want: &str) {
    let retry = match error.retry() {
        Retry::Unsaid => "-".to_owned(),
        Retry::Never => "never".to_owned(),
        Retry::AfterSecs(secs) => format!("after {secs}"),
    };
    let code = error.error_code().unwrap_or("-");
    assert_eq!(format!("{} | {code} | {retry} | {error}", error.status()), want);

    let body = serde_json::to_value(error.body()).unwrap();
    assert_eq!(body["code"], error.status());
    assert_eq!(body["message"], error.to_string());
    assert_eq!(body.get("error_code").and_then(|code| code.as_str()), error.error_code());
    for reserved in ["was not found", "port is not open"] {
        assert!(!error.to_string().contains(reserved), "{error}");
    }
}

macro_rules! rows {
    ($($name:ident: $error:expr => $want:literal;)*) => {
        $(#[test] fn $name() { check($error, $want); })*
    };
}

fn text(text: &str) -> String {
    text.to_owned()
}

rows! {
    no_credential: ApiError::NoCredential => "401 | - | - | authorization header is missing";
    malformed_credential: ApiError::MalformedCredential => "401 | - | - | authorization header is malformed";
    invalid_api_key: ApiError::InvalidApiKey { reason: "no such key" }
        => "401 | - | - | Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\nno such key";
    unknown_route: ApiError::UnknownRoute { method: text("GET"), path: text("/x") }
        => "404 | - | - | There is no route GET /x";
    method_not_allowed: ApiError::MethodNotAllowed { method: text("PUT"), path: text("/sandboxes") }
        => "405 | - | - | Method PUT is not allowed for /sandboxes";
    operation_not_available: ApiError::OperationNotAvailable { operation: text("POST /volumes") }
        => "501 | - | - | POST /volumes is not available in this version of Sandbar";
    option_not_available: ApiError::OptionNotAvailable { option: "network.allowOut" }
        => "400 | - | - | The option 'network.allowOut' is not available in this version of Sandbar";
    body_too_large: ApiError::BodyTooLarge { limit_bytes: 16 }
        => "413 | - | - | The request body is larger than 16 bytes";
    body_too_slow: ApiError::BodyTooSlow { limit_secs: 10 }
        => "408 | - | - | The request body did not arrive within 10 seconds";
    body_incomplete: ApiError::BodyIncomplete
        => "400 | - | - | Error when parsing request: the body is incomplete";
    malformed_body: ApiError::MalformedBody { detail: text("expected value") }
        => "400 | - | - | Error when parsing request: expected value";
    validation: ApiError::Validation { detail: text("missing field `templateID`") }
        => "400 | - | - | validation error: missing field `templateID`";
    invalid_next_token: ApiError::InvalidNextToken => "400 | - | - | Invalid next token";
    malformed_metadata: ApiError::MalformedMetadata => "400 | - | - | Error parsing metadata";
    tagged_template_filter: ApiError::TaggedTemplateFilter
        => "400 | - | - | Invalid template: tags are not supported here because sandboxes are not tag-scoped";
    team_mismatch: ApiError::TeamMismatch => "400 | - | - | Team ID param mismatch with the API key";
    invalid_sandbox_id: ApiError::InvalidSandboxId => "400 | - | - | Invalid sandbox ID";
    sandbox_not_found: ApiError::SandboxNotFound { id: text("iabc") }
        => "404 | - | - | Sandbox \"iabc\" doesn't exist or you don't have access to it";
    sandbox_being_killed: ApiError::SandboxBeingKilled { id: text("iabc") }
        => "409 | - | - | Sandbox \"iabc\" is being killed";
    sandbox_already_running: ApiError::SandboxAlreadyRunning { id: text("iabc") }
        => "409 | - | - | Sandbox iabc is already running";
    timeout_too_small: ApiError::TimeoutTooSmall => "400 | - | - | Timeout must be greater than 0";
    timeout_too_long: ApiError::TimeoutTooLong { hours: 24 }
        => "400 | - | - | Timeout cannot be greater than 24 hours";
    auto_pause_memory_alone: ApiError::AutoPauseMemoryAlone
        => "400 | - | - | autoPauseMemory=false only applies when autoPause is true.";
    auto_pause_memory_with_auto_resume: ApiError::AutoPauseMemoryWithAutoResume
        => "400 | - | - | autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume.";
    invalid_template_reference: ApiError::InvalidTemplateReference { detail: text("invalid tag ''") }
        => "400 | - | - | Invalid template reference: invalid tag ''";
    template_not_found: ApiError::TemplateNotFound { template: text("x") }
        => "404 | - | - | template 'x' not found";
    tag_not_found: ApiError::TagNotFound { template: text("x"), tag: text("t") }
        => "404 | - | - | tag 't' does not exist for template 'x'";
    no_such_template: ApiError::NoSuchTemplate { template: text("x") } => "404 | - | - | Template x not found";
    invalid_alias: ApiError::InvalidAlias { detail: text("invalid tag ''") }
        => "400 | - | - | Invalid alias format: invalid tag ''";
    concurrent_limit: ApiError::ConcurrentLimit { max: 20 }
        => "429 | - | never | you have reached the maximum number of concurrent E2B sandboxes (20). If you need more, please visit 'https://e2b.dev/docs/billing'";
    no_capacity: ApiError::NoCapacity { detail: text("full") }
        => "503 | sandbox_capacity_unavailable | after 1 | Failed to place sandbox: full";
    create_failed: ApiError::CreateFailed { detail: text("boot") }
        => "500 | sandbox_create_failed | never | Failed to create sandbox: boot";
    draining: ApiError::Draining => "503 | - | after 1 | The server is shutting down";
    internal: ApiError::Internal => "500 | internal_server_error | never | Internal server error";
}
