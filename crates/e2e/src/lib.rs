//! The product through the real SDKs and over the real wire.
