//! What others see: E2B bodies, messages, host grammar, tokens, error texts.

pub mod envd;
pub mod agent_paths;
pub mod edge_errors;
pub mod host;
