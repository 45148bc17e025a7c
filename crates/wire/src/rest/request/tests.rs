//! What clients of all generations write, and what is refused.

use super::*;

/// The answer to a create body: `ok` or the error.
#[track_caller]
fn check(version: Version, body: &str, want: &str) {
    let got = NewSandbox::parse(body.as_bytes(), version).and_then(|new| new.check_available());
    let got = got.map_or_else(|error| format!("{} {error}", error.status()), |()| "ok".to_owned());
    assert!(got.starts_with(want), "{body}\n got {got}\nwant {want}");
}

#[test]
fn what_clients_send_by_default_is_accepted() {
    for body in [
        r#"{"templateID":"base","timeout":300}"#,
        r#"{"autoPause":false,"templateID":"base","timeout":300,"allow_internet_access":true}"#,
        r#"{"autoPause":false,"templateID":"base","timeout":300,"secure":true,"allow_internet_access":true,"autoResume":{"enabled":false}}"#,
        r#"{"templateID":"base","envVars":{},"metadata":{},"timeout":300,"autoPauseMemory":true}"#,
        r#"{"templateID":"base","network":{"allowPublicTraffic":true,"allowOut":[],"denyOut":[],"rules":{}},"volumeMounts":[],"mcp":null}"#,
        r#"{"templateID":"base","network":{"allowPublicTraffic":null,"egressProxy":null},"iam":{"tokens":{}},"futureOption":[1]}"#,
    ] {
        check(Version::V1, body, "ok");
        check(Version::V2, body, "ok");
    }
    check(Version::V1, r#"{"templateID":"base","network":null,"metadata":null,"secure":null}"#, "ok");
}

#[test]
fn what_later_versions_bring_is_named() {
    for (field, option) in [
        (r#""autoPause":true"#, "autoPause"),
        (r#""autoResume":{"enabled":true}"#, "autoResume"),
        (r#""autoPause":true,"autoPauseMemory":false"#, "autoPause"),
        (r#""network":{"allowOut":["1.1.1.1"]}"#, "network.allowOut"),
        (r#""network":{"denyOut":["0.0.0.0/0"]}"#, "network.denyOut"),
        (r#""network":{"rules":{"a.b":[]}}"#, "network.rules"),
        (r#""network":{"maskRequestHost":"x"}"#, "network.maskRequestHost"),
        (r#""network":{"egressProxy":{"address":"x"}}"#, "network.egressProxy"),
        (r#""network":{"httpsPorts":[443]}"#, "network.httpsPorts"),
        (r#""network":{"dnsServers":["1.1.1.1"]}"#, "network.dnsServers"),
        (r#""network":{"allowPublicTraffic":false}"#, "network.allowPublicTraffic"),
        (r#""volumeMounts":[{"name":"v","path":"/v"}]"#, "volumeMounts"),
        (r#""mcp":{"x":{}}"#, "mcp"),
        (r#""iam":{"tokens":{"x":{}}}"#, "iam"),
    ] {
        let body = format!(r#"{{"templateID":"base",{field}}}"#);
        check(Version::V2, &body, &format!("400 The option '{option}' is not available"));
    }
}

#[test]
fn the_second_version_is_strict() {
    for field in [
        r#""timeout":300.0"#,
        r#""timeout":"60""#,
        r#""network":null"#,
        r#""metadata":null"#,
        r#""timeout":3000000000"#,
    ] {
        check(Version::V2, &format!(r#"{{"templateID":"base",{field}}}"#), "400 validation error: ");
    }
    check(Version::V2, r#"{"templateID":"base","secure":"ignored"}"#, "ok");
    check(Version::V2, r#"{"templateID":"base","unknown":1,"mcp":null}"#, "ok");
    check(Version::V2, r#"{"templateID":"base","autoResume":{}}"#, "400 validation error: ");
}

#[test]
fn bodies_that_are_not_what_they_should_be() {
    check(Version::V1, "", "400 Error when parsing request: ");
    check(Version::V1, "{", "400 Error when parsing request: ");
    check(Version::V1, "[]", "400 validation error: ");
    check(Version::V1, "{}", "400 validation error: missing field `templateID`");
    check(Version::V1, r#"{"templateID":7}"#, "400 validation error: ");
    check(Version::V1, r#"{"templateID":"base","envVars":{"a":1}}"#, "400 validation error: ");
}

#[test]
fn automatic_pause_without_memory_needs_automatic_pause_and_no_automatic_resume() {
    check(
        Version::V1,
        r#"{"templateID":"base","autoPauseMemory":false}"#,
        "400 autoPauseMemory=false only applies when autoPause is true.",
    );
    check(
        Version::V1,
        r#"{"templateID":"base","autoPause":true,"autoPauseMemory":false,"autoResume":{"enabled":true}}"#,
        "400 autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume",
    );
}

#[test]
fn only_the_first_version_can_be_unsecured() {
    let secure = |version, body: &str| NewSandbox::parse(body.as_bytes(), version).unwrap().secure;
    assert!(!secure(Version::V1, r#"{"templateID":"base"}"#));
    assert!(secure(Version::V1, r#"{"templateID":"base","secure":true}"#));
    assert!(secure(Version::V2, r#"{"templateID":"base","secure":false}"#));
}

#[test]
fn connect_needs_a_timeout_in_the_first_version_only() {
    let connect = |version, body: &str| Connect::parse(body.as_bytes(), version);
    assert_eq!(connect(Version::V1, r#"{"timeout":0}"#), Ok(Connect { timeout_secs: 0 }));
    assert!(connect(Version::V1, "{}").is_err());
    assert!(connect(Version::V1, "").is_err());
    assert!(connect(Version::V1, r#"{"timeout":-1}"#).is_err());
    assert_eq!(connect(Version::V2, ""), Ok(Connect { timeout_secs: 300 }));
    assert_eq!(connect(Version::V2, r#"{"memory":false}"#), Ok(Connect { timeout_secs: 300 }));
    assert_eq!(connect(Version::V2, r#"{"timeout":7}"#), Ok(Connect { timeout_secs: 7 }));
    assert_eq!(connect(Version::V2, r#"{"timeout":0}"#), Err(ApiError::TimeoutTooSmall));
}

#[test]
fn a_refresh_is_15_to_3600_seconds() {
    let refresh = |body: &str| Refresh::parse(body.as_bytes()).map(|refresh| refresh.duration_secs);
    assert_eq!(refresh(""), Ok(15));
    assert_eq!(refresh(r#"{"duration":3}"#), Ok(15));
    assert_eq!(refresh(r#"{"duration":3600}"#), Ok(3600));
    assert!(refresh(r#"{"duration":3601}"#).is_err());
    assert!(refresh(r#"{"duration":-1}"#).is_err());
}

#[test]
fn a_timeout_may_be_zero_and_not_less() {
    let timeout = |body: &str| SetTimeout::parse(body.as_bytes()).map(|set| set.timeout_secs);
    assert_eq!(timeout(r#"{"timeout":0}"#), Ok(0));
    assert!(timeout(r#"{"timeout":-1}"#).is_err());
    assert!(timeout("").is_err());
    assert_eq!(Resume::parse(b""), Ok(Resume { timeout_secs: 15 }));
}
