//! What others see: E2B bodies, messages, host grammar, tokens, error texts.

pub mod envd;
