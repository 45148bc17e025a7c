//! `/init`, `/envs`, `/metrics`.

use serde_json::json;

use crate::guest::Guest;

/// Case 108.
#[test]
fn the_first_init_may_be_empty() {
    let guest = Guest::fresh();
    for body in [&b"{}"[..], b"", b"{\"unknown\":[1]}"] {
        let answer = guest.post("/init", &[], body);
        assert_eq!(
            (answer.status, answer.header("x-envd-version")),
            (204, Some(sandbar_wire::envd::VERSION))
        );
    }
}

/// Cases 109 to 111.
#[test]
fn without_a_host_a_token_can_only_be_set_once() {
    let guest = Guest::fresh();
    let init = |token: &str| guest.init(&json!({"accessToken": token, "defaultUser": "user"}));
    assert_eq!(init("").status, 400);
    assert_eq!(init("a\\b").status, 400);
    assert_eq!(init("t1").status, 204);
    let answer = init("t2");
    assert_eq!((answer.status, answer.text().trim_end()), (401, "access token validation failed"));
    assert_eq!(init("t1").status, 204);
    let answer = guest.init(&json!({}));
    assert_eq!((answer.status, answer.text().trim_end()), (401, "access token reset not authorized"));
    assert!(answer.header("x-envd-version").is_some());
}

#[test]
fn the_host_alone_may_init_and_may_change_the_token() {
    let guest = Guest::hosted();
    assert_eq!(guest.init(&json!({})).status, 401);
    assert_eq!(guest.post("/init", &[("x-sandbar-control", "guess")], b"{}").status, 401);
    assert_eq!(guest.get("/envs", &[]).status, 200);
    assert_eq!(guest.init_as_host(&json!({"accessToken": "t1"})).status, 204);
    assert_eq!(guest.init(&json!({"accessToken": "t1"})).status, 401);
    assert_eq!(guest.get("/envs", &[]).status, 401);
    assert_eq!(guest.init_as_host(&json!({"accessToken": "t2"})).status, 204);
    assert_eq!(guest.get("/envs", &[("x-access-token", "t1")]).status, 401);
    assert_eq!(guest.get("/envs", &[("x-access-token", "t2")]).status, 200);
    assert_eq!(guest.init_as_host(&json!({})).status, 204);
    assert_eq!(guest.get("/envs", &[]).status, 200);
}

#[test]
fn the_control_secret_cannot_be_read_in_the_guest() {
    let guest = Guest::hosted();
    assert_eq!(guest.init_as_host(&json!({"defaultUser": "user"})).status, 204);
    assert_eq!(guest.run_root("readlink /proc/1/fd/0"), "/dev/null\n");
    guest.run_root(
        "! tr '\\0' ' ' < /proc/1/cmdline | grep 5ec3e7; ! tr '\\0' ' ' < /proc/1/environ | grep 5ec3e7",
    );
}

#[test]
fn the_host_says_who_the_guest_is() {
    let guest = Guest::hosted();
    let request = json!({
        "defaultUser": "user", "sandboxID": "i1", "templateID": "base", "teamID": "team",
        "hostname": "sbx-i1", "nameserver": "169.254.0.22",
        "caBundle": "-----BEGIN CERTIFICATE-----\nMIIX\n-----END CERTIFICATE-----\n",
    });
    assert_eq!(guest.init_as_host(&request).status, 204);
    assert_eq!(guest.init_as_host(&request).status, 204);
    let want = json!({
        "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "i1", "E2B_TEMPLATE_ID": "base", "E2B_TEAM_ID": "team",
    });
    assert_eq!(guest.get("/envs", &[]).json(), want);
    let script = "cat /run/e2b/.E2B_SANDBOX; cat /run/e2b/.E2B_SANDBOX_ID; cat /run/e2b/.E2B_TEMPLATE_ID; echo; \
                  hostname; cat /etc/hostname /etc/resolv.conf; grep -c sbx-i1 /etc/hosts; \
                  grep -c '^MIIX$' /etc/ssl/certs/ca-certificates.crt; echo $E2B_SANDBOX_ID";
    assert_eq!(guest.run(script), "truei1base\nsbx-i1\nsbx-i1\nnameserver 169.254.0.22\n1\n1\ni1\n");
}

/// Case 112.
#[test]
fn an_older_init_is_acknowledged_and_ignored() {
    let guest = Guest::fresh();
    let init = |timestamp: &str, value: &str| {
        guest.init(&json!({"timestamp": timestamp, "envVars": {"A": value}, "defaultUser": "user"})).status
    };
    let now = jiff::Timestamp::now();
    let earlier = now - jiff::SignedDuration::from_millis(1);
    assert_eq!(init(&now.to_string(), "new"), 204);
    assert_eq!(init(&earlier.to_string(), "old"), 204);
    assert_eq!(guest.get("/envs", &[]).json()["A"], "new");
    assert_eq!(init(&now.to_string(), "same"), 204);
    assert_eq!(guest.get("/envs", &[]).json()["A"], "same");
    assert_eq!(init("yesterday", "x"), 400);
}

/// Case 114.
#[test]
fn the_event_service_has_one_line_in_the_hosts_file() {
    let guest = Guest::start();
    guest.run_root("echo '10.1.1.1 mine # keep' >> /etc/hosts");
    for address in ["192.0.2.9", "192.0.2.1"] {
        assert_eq!(guest.init(&json!({"hyperloopIP": address})).status, 204);
    }
    assert_eq!(guest.run("grep events.e2b.local /etc/hosts"), "192.0.2.1\tevents.e2b.local\n");
    assert_eq!(guest.run("grep -c '10.1.1.1 mine # keep' /etc/hosts"), "1\n");
    assert_eq!(guest.run("echo $E2B_EVENTS_ADDRESS"), "http://192.0.2.1\n");
}

/// Case 115.
#[test]
fn malformed_requests_are_refused_with_the_version() {
    let guest = Guest::fresh();
    let answer = guest.post("/init", &[], b"{");
    assert_eq!((answer.status, answer.body.len()), (400, 0));
    assert!(answer.header("x-envd-version").is_some());
}

/// Case 117.
#[test]
fn metrics_have_all_their_fields() {
    let guest = Guest::hosted();
    for _ in 0..2 {
        let answer = guest.get("/metrics", &[]);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let metrics = answer.json();
        let keys = [
            "ts",
            "cpu_count",
            "cpu_used_pct",
            "mem_total_mib",
            "mem_used_mib",
            "mem_total",
            "mem_used",
            "mem_cache",
            "disk_used",
            "disk_total",
        ];
        assert!(keys.iter().all(|key| metrics[key].is_number()), "{metrics}");
        assert_eq!(metrics.as_object().unwrap().len(), keys.len());
        let number = |key: &str| metrics[key].as_f64().unwrap();
        assert!(number("mem_used") <= number("mem_total") && number("mem_total") > 0.0);
        assert!((0.0..=100.0).contains(&number("cpu_used_pct")));
        assert_eq!(metrics["disk_total"], 1_000_000_000);
    }
}
