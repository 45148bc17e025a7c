//! What browsers may send and read. Sources: contract/control-api.md §2.8, contract/client-versions.md §2.2 rule 22.

/// For `Access-Control-Allow-Methods`.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// For `Access-Control-Allow-Headers`.
pub const REQUEST_HEADERS: &str = "Origin, Content-Length, Content-Type, User-Agent, Authorization, X-API-Key, \
     X-Team-ID, browser, lang, lang_version, machine, os, package_version, processor, publisher, release, sdk_runtime, \
     system, Idempotency-Key, X-Access-Token, E2b-Sandbox-Id, E2b-Sandbox-Port, E2B-Traffic-Access-Token, \
     Connect-Protocol-Version, Connect-Timeout-Ms, Keepalive-Ping-Interval";

/// For `Access-Control-Expose-Headers`.
pub const RESPONSE_HEADERS: &str = "X-Next-Token, X-Total-Running, RateLimit-Limit, RateLimit-Remaining, \
     RateLimit-Reset, Retry-After, Should-Retry, X-E2B-Trace-ID, Server-Timing";

/// For `Access-Control-Max-Age`: how long a browser may remember all this. Chromium remembers no longer.
pub const MAX_AGE_SECS: u32 = 7200;
