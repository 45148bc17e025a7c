//! How protobuf JSON spells what serde would spell otherwise.
//!
//! Source: protobuf.dev/programming-guides/json: 64-bit integers are strings, bytes are base64, enums are names,
//! and a field with its default value is left out.

/// For `skip_serializing_if` on fields without presence.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `bytes` with presence: standard base64 with padding out; both alphabets, padded or not, in.
pub(super) mod bytes {
    use base64::Engine as _;
    use base64::alphabet;
    use base64::engine::DecodePaddingMode;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
    use serde::{Deserializer, Serializer, de};

    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD_IN: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE_IN: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

    pub(crate) fn serialize<S: Serializer>(value: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => s.serialize_str(&STANDARD.encode(bytes)),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        d.deserialize_option(Visitor)
    }

    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Option<Vec<u8>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("base64 text")
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
            d.deserialize_str(self)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let engine = if text.contains(['-', '_']) { &URL_SAFE_IN } else { &STANDARD_IN };
            engine.decode(text).map(Some).map_err(E::custom)
        }
    }
}

/// `int64`: a string out, a string or a number in.
pub(super) mod int64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &i64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(d)? {
            Either::Number(value) => Ok(value),
            Either::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// Writes the serde module `$module` for a field that holds enum `$enum` as `i32`: names out, names or numbers in.
/// A number this version does not know stays a number.
macro_rules! enum_field {
    ($module:ident, $enum:ty) => {
        mod $module {
            use super::*;
            use serde::{Deserializer, Serializer, de};

            pub(crate) fn serialize<S: Serializer>(value: &i32, s: S) -> Result<S::Ok, S::Error> {
                match <$enum>::try_from(*value) {
                    Ok(known) => s.serialize_str(known.as_str_name()),
                    Err(_) => s.serialize_i32(*value),
                }
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i32, D::Error> {
                struct Visitor;

                impl de::Visitor<'_> for Visitor {
                    type Value = i32;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a name or number of ", stringify!($enum)))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<i32, E> {
                        <$enum>::from_str_name(text)
                            .map(|known| known as i32)
                            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i32, E> {
                        i32::try_from(number).map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i32, E> {
                        i32::try_from(number).map_err(E::custom)
                    }
                }

                d.deserialize_any(Visitor)
            }
        }
    };
}
pub(super) use enum_field;
