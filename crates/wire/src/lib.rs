//! What others see: E2B bodies, messages, host grammar, tokens, error texts.

pub mod agent_paths;
pub mod api_key;
pub mod edge_errors;
pub mod envd;
pub mod host;
pub mod rest;
