//! `/files`.

use serde_json::{Value, json};

use crate::client::{Answer, Exchange, send};
use crate::guest::Guest;

const RAW: (&str, &str) = ("content-type", "application/octet-stream");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

/// A form with one `file` part per name and content; no name: no `filename` parameter.
fn form(parts: &[(Option<&str>, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (filename, content) in parts {
        let filename = filename.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        body.push_str(&format!(
            "--XX\r\nContent-Disposition: form-data; name=\"file\"{filename}\r\n\r\n{content}\r\n"
        ));
    }
    body.push_str("--XX--\r\n");
    body.into_bytes()
}

fn written(paths: &[&str]) -> Value {
    let file = |path: &&str| json!({"path": path, "name": path.rsplit('/').next(), "type": "file"});
    Value::Array(paths.iter().map(file).collect())
}

#[track_caller]
fn stored(answer: &Answer, paths: &[&str]) {
    assert_eq!((answer.status, answer.json()), (200, written(paths)));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).unwrap();
    plain
}

/// Case 88.
#[test]
fn a_form_with_a_path_stores_there() {
    let guest = Guest::start();
    // Clients of different ages put different things into the name of the part.
    for name in [Some("blob"), Some("undefined"), Some("d/x.txt"), None] {
        stored(
            &guest.post("/files?path=d/x.txt", &[FORM], &form(&[(name, "hello")])),
            &["/home/user/d/x.txt"],
        );
    }
    assert_eq!(
        guest.run("cd; cat d/x.txt; echo; stat -c '%a %U %G' d d/x.txt"),
        "hello\n755 user user\n644 user user\n"
    );
}

/// Cases 89 to 91.
#[test]
fn a_form_without_a_path_stores_where_its_parts_say() {
    let guest = Guest::start();
    let answer = guest.post("/files", &[FORM], &form(&[(Some("a/ä.txt"), "1"), (Some("/tmp/b"), "2")]));
    stored(&answer, &["/home/user/a/ä.txt", "/tmp/b"]);
    assert_eq!(guest.run("cat ~/a/ä.txt /tmp/b"), "12");
    stored(&guest.post("/files?username=root", &[FORM], &form(&[(Some("r"), "1")])), &["/root/r"]);
    assert_eq!(guest.post("/files", &[FORM], &form(&[(None, "1")])).status, 400);
    let twice = guest.post("/files", &[FORM], &form(&[(Some("same"), "first"), (Some("same"), "second")]));
    assert_eq!(twice.status, 400);
    assert_eq!(guest.run("cat ~/same"), "first");
    let other = b"--XX\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nx\r\n--XX--\r\n";
    stored(&guest.post("/files", &[FORM], other), &[]);
    assert_eq!(guest.post("/files", &[FORM], b"--XX\r\nContent").status, 400);
    let literal = guest.post("/files", &[FORM], &form(&[(Some("a%22b"), "1")]));
    stored(&literal, &["/home/user/a%22b"]);
}

/// Cases 92 and 93.
#[test]
fn a_raw_body_may_be_compressed_and_needs_a_path() {
    let guest = Guest::start();
    assert_eq!(guest.post("/files", &[RAW], b"x").status, 400);
    assert_eq!(guest.post("/files?path=x", &[("content-type", "application/json")], b"x").status, 400);
    let text = b"all work and no play ".repeat(100_000);
    let compressed = [RAW, ("content-encoding", "gzip")];
    stored(&guest.post("/files?path=z", &compressed, &gzip(&text)), &["/home/user/z"]);
    assert_eq!(guest.get("/files?path=z", &[]).body, text);
    assert_eq!(guest.post("/files?path=z2", &compressed, b"not gzip at all").status, 400);
    assert_eq!(guest.post("/files?path=z2", &compressed, &gzip(&text)[..1000]).status, 400);
    assert_eq!(guest.post("/files?path=z2", &[RAW, ("content-encoding", "br")], b"x").status, 400);
    let form = gzip(&form(&[(Some("from-form"), "1")]));
    stored(&guest.post("/files", &[FORM, ("content-encoding", "gzip")], &form), &["/home/user/from-form"]);
    stored(&guest.post("/files?path=empty", &[RAW], b""), &["/home/user/empty"]);
}

#[test]
fn chunked_uploads_are_streamed() {
    let guest = Guest::start();
    let mut exchange =
        Exchange::begin(guest.port, "POST", "/files?path=big", &[RAW, ("expect", "100-continue")], None);
    for _ in 0..40 {
        exchange.send_chunk(&[b'x'; 100_000]);
    }
    exchange.send_chunk(b"");
    assert_eq!(exchange.read_head().0, 200);
    assert_eq!(guest.run("stat -c %s ~/big"), "4000000\n");
}

/// Case 94 and what stands in the way of a path.
#[test]
fn uploads_onto_directories_and_below_files_are_refused() {
    let guest = Guest::start();
    assert_eq!(guest.post("/files?path=/tmp", &[RAW], b"x").status, 400);
    assert_eq!(guest.post("/files?path=.bashrc/x", &[RAW], b"x").status, 400);
    assert_eq!(guest.post("/files?path=~root/x", &[RAW], b"x").status, 400);
    assert_eq!(guest.post("/files?path=x&username=nobody-x", &[RAW], b"x").status, 401);
}

/// Case 97.
#[test]
fn a_full_disk_has_its_own_status() {
    let guest = Guest::start();
    guest.run_root("mkdir /tmp/small; mount -t tmpfs -o size=64k,mode=777 tmpfs /tmp/small");
    let answer = guest.post("/files?path=/tmp/small/f", &[RAW], &[b'x'; 300_000]);
    assert_eq!(answer.status, 507);
    assert!(answer.json()["message"].as_str().unwrap().contains("not enough disk space"));
    assert_eq!(guest.get("/health", &[]).status, 204);
}

/// Case 98.
#[test]
fn an_overwritten_file_changes_its_owner_and_keeps_its_mode() {
    let guest = Guest::start();
    guest.run_root("echo old > /tmp/f; chmod 600 /tmp/f; ln -s f /tmp/l");
    stored(&guest.post("/files?path=/tmp/f", &[RAW], b"new"), &["/tmp/f"]);
    assert_eq!(guest.run("stat -c '%a %U' /tmp/f; cat /tmp/f"), "600 user\nnew");
    stored(&guest.post("/files?path=/tmp/l", &[RAW], b"through"), &["/tmp/l"]);
    assert_eq!(guest.run("cat /tmp/f; test -L /tmp/l"), "through");
}

#[test]
fn parallel_uploads_make_their_common_directories() {
    let guest = Guest::start();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let guest = &guest;
            scope.spawn(move || {
                let path = format!("/files?path=n/e/w/{number}");
                assert_eq!(guest.post(&path, &[RAW], b"x").status, 200);
            });
        }
    });
    assert_eq!(guest.run("cd; stat -c '%U' n n/e n/e/w n/e/w/*").trim().replace("user", ""), "\n".repeat(10));
}

/// Cases 99 and 100.
#[test]
fn what_cannot_be_sent_says_why() {
    let guest = Guest::start();
    let answer = guest.get("/files?path=demo/test.txt", &[]);
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.text(),
        "{\"code\":404,\"message\":\"path '/home/user/demo/test.txt' does not exist\"}\n"
    );
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    for path in ["demo", "", "/"] {
        assert_eq!(guest.get(&format!("/files?path={path}"), &[]).status, 400, "{path}");
    }
    guest.run("mkfifo /tmp/pipe");
    assert_eq!(guest.get("/files?path=/tmp/pipe", &[]).status, 400);
}

/// Cases 101 to 103.
#[test]
fn downloads_are_encoded_as_the_client_likes() {
    let guest = Guest::start();
    guest.run("printf 'hello world' > ~/f; touch ~/empty");
    let get = |headers: &[(&str, &str)]| guest.get("/files?path=f", headers);
    let answer = get(&[("accept-encoding", "gzip, deflate")]);
    assert_eq!(
        (answer.header("content-encoding"), gunzip(&answer.body)),
        (Some("gzip"), b"hello world".to_vec())
    );
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    let answer = get(&[]);
    assert_eq!((answer.header("content-length"), answer.text().as_str()), (Some("11"), "hello world"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    let answer = get(&[("range", "bytes=0-4"), ("accept-encoding", "gzip")]);
    assert_eq!((answer.status, answer.text().as_str()), (206, "hello"));
    assert_eq!(answer.header("content-range"), Some("bytes 0-4/11"));
    assert_eq!(get(&[("range", "bytes=0-4"), ("accept-encoding", "gzip, *;q=0")]).status, 406);
    assert_eq!(get(&[("range", "bytes=11-")]).status, 416);
    let modified = get(&[]).header("last-modified").unwrap().to_owned();
    assert_eq!(get(&[("if-modified-since", &modified)]).status, 304);
    let empty = guest.get("/files?path=empty", &[]);
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
    assert!(gunzip(&guest.get("/files?path=empty", &[("accept-encoding", "gzip")]).body).is_empty());
}

/// Case 104.
#[test]
fn files_that_do_not_know_their_size_are_sent_to_their_end() {
    let guest = Guest::start();
    let want = guest.run("cat /proc/cpuinfo | grep -c processor");
    for (headers, decode) in [(&[][..], false), (&[("accept-encoding", "gzip")][..], true)] {
        let body = guest.get("/files?path=/proc/cpuinfo", headers).body;
        let text = String::from_utf8(if decode { gunzip(&body) } else { body }).unwrap();
        assert_eq!(format!("{}\n", text.matches("processor\t").count()), want);
    }
    assert_eq!(guest.get("/files?path=/sys/kernel/mm/transparent_hugepage/enabled", &[]).status, 200);
}

/// Cases 105 and 106.
#[test]
fn names_survive_queries_and_headers() {
    let guest = Guest::start();
    guest.run("cd; echo -n 1 > 'a b'; echo -n 2 > 文档.pdf");
    let answer = guest.get("/files?path=a+b", &[]);
    assert_eq!(
        (answer.text().as_str(), answer.header("content-disposition")),
        ("1", Some("inline; filename=\"a b\""))
    );
    let answer = guest.get("/files?path=%E6%96%87%E6%A1%A3.pdf", &[]);
    let want = "inline; filename*=utf-8''%E6%96%87%E6%A1%A3.pdf";
    assert_eq!(answer.header("content-disposition"), Some(want));
    assert_eq!(answer.header("content-type"), Some("application/pdf"));
}

#[test]
fn large_files_come_back_as_they_went() {
    let guest = Guest::start();
    let noise: Vec<u8> =
        (0u32..3_000_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    assert_eq!(guest.post("/files?path=noise", &[RAW], &noise).status, 200);
    assert!(guest.get("/files?path=noise", &[]).body == noise);
    assert!(gunzip(&guest.get("/files?path=noise", &[("accept-encoding", "gzip")]).body) == noise);
    let mut body =
        b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"noise2\"\r\n\r\n".to_vec();
    body.extend_from_slice(&noise);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    assert_eq!(guest.post("/files", &[FORM], &body).status, 200);
    guest.run("cmp ~/noise ~/noise2");
}

#[test]
fn everything_can_be_read_whoever_asks() {
    let guest = Guest::start();
    guest.run_root("echo -n secret > /root/s; chmod 600 /root/s");
    assert_eq!(guest.get("/files?path=/root/s", &[]).text(), "secret");
}

#[test]
fn a_client_that_hangs_up_leaves_the_agent_well() {
    let guest = Guest::start();
    guest.run("head -c 50000000 /dev/zero > /tmp/zeros");
    for _ in 0..5 {
        let mut exchange = Exchange::begin(guest.port, "GET", "/files?path=/tmp/zeros", &[], Some(b""));
        assert_eq!(exchange.read_head().0, 200);
        drop(exchange);
        let mut exchange = Exchange::begin(guest.port, "POST", "/files?path=/tmp/part", &[RAW], None);
        exchange.send_chunk(b"abc");
        drop(exchange);
    }
    assert_eq!(send(guest.port, "GET", "/health", &[], b"").status, 204);
}

/// Cases 95 and 96. The guest's home is on tmpfs, which has had user attributes since Linux 6.6.
#[test]
fn metadata_is_stored_replaced_and_removed() {
    let guest = Guest::start();
    let with = |headers: &[(&str, &str)]| {
        let mut all = vec![RAW];
        all.extend_from_slice(headers);
        guest.post("/files?path=f", &all, b"x")
    };
    let metadata = || guest.filesystem("Stat", json!({"path": "f"})).json()["entry"]["metadata"].clone();
    let answer = with(&[("X-Metadata-Author", "me"), ("X-Metadata-Kind", "note")]).json();
    assert_eq!(answer[0]["metadata"], json!({"author": "me", "kind": "note"}));
    assert_eq!(metadata(), json!({"author": "me", "kind": "note"}));
    assert_eq!(with(&[("X-Metadata-Author", "you")]).json()[0]["metadata"], json!({"author": "you"}));
    stored(&with(&[]), &["/home/user/f"]);
    assert_eq!(metadata(), Value::Null);
    let refused = guest.post("/files?path=g", &[RAW, ("X-Metadata-Big", &"v".repeat(5000))], b"x");
    assert_eq!(refused.status, 400);
    assert_eq!(guest.filesystem("Stat", json!({"path": "g"})).status, 404);
}

/// Case 107.
#[test]
fn files_are_composed_whole_or_not_at_all() {
    let guest = Guest::start();
    guest.run("cd; printf 1 > one; printf 2 > two; printf old > all");
    let compose = |sources: &[&str], destination: &str| {
        let request = json!({"source_paths": sources, "destination": destination});
        guest.post("/files/compose", &[], request.to_string().as_bytes())
    };
    assert_eq!(compose(&["one", "gone"], "all").status, 404);
    assert_eq!(guest.run("cd; cat one all"), "1old");
    assert_eq!(
        compose(&["one", "two"], "new/all").json(),
        json!({"path": "/home/user/new/all", "name": "all", "type": "file"})
    );
    assert_eq!(
        guest.run("cd; cat new/all; stat -c '%a %U' new/all; ls new; test ! -e one && test ! -e two"),
        "12644 user\nall\n"
    );
    for (sources, destination) in
        [(&[][..], "x"), (&["all"], ""), (&["all"], "./all"), (&["demo"], "x"), (&["~root/x"], "x")]
    {
        assert_eq!(compose(sources, destination).status, 400, "{sources:?} {destination}");
    }
    assert_eq!(guest.post("/files/compose", &[], b"{").status, 400);
    assert_eq!(
        guest
            .post("/files/compose", &[], br#"{"source_paths":["all"],"destination":"y","username":"ghost"}"#)
            .status,
        401
    );
}
