//! Conversions of a payload between its forms: bytes, a JSON value, and the members of a whole JSON object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use bytestring::ByteString;

use crate::protocol::dialect::json_text::{JsonObject, JsonValue, ObjectBuilder};
use crate::protocol::model::Payload;

/// Name under which bytes that are not JSON travel in a JSON dialect, in base64.
const BYTES: &str = "$bytes";

impl Payload {
    /// Returns the payload as bytes. JSON becomes its text, except that the JSON form of bytes becomes those
    /// bytes.
    pub(in crate::protocol::dialect) fn into_bytes(self) -> Bytes {
        if let Payload::Bytes(bytes) = self {
            return bytes;
        }
        let text = self.into_json();
        decode_json_form(&text).unwrap_or_else(|| text.into_bytes())
    }

    /// Returns the payload as the text of a JSON value. Bytes that are not JSON become `{"$bytes":"…"}`, in
    /// base64.
    pub(in crate::protocol::dialect) fn into_json(self) -> ByteString {
        match self {
            Payload::Bytes(bytes) => value_of_bytes(&bytes).into_text(),
            Payload::Json(text) => text,
            Payload::ObjectFrame { text, .. } => foreign_members(object_of_frame(text)),
        }
    }

    /// Returns the payload as a JSON object. A value that is no object, or has reserved names, becomes the
    /// member `data`. An object frame is returned with all of its members.
    pub(in crate::protocol::dialect) fn into_object(self) -> JsonObject {
        let value = match self {
            Payload::Bytes(bytes) => value_of_bytes(&bytes),
            Payload::Json(text) => JsonValue::parse(text.clone()).unwrap_or(JsonValue::Other(text)),
            Payload::ObjectFrame { text, .. } => return object_of_frame(text),
        };
        match value {
            JsonValue::Object(object)
                if !object.has_only("data") && !object.iter().any(|(name, _)| is_reserved(name)) =>
            {
                object
            }
            value @ (JsonValue::Object(_) | JsonValue::Other(_)) => {
                JsonObject::with_member("data", &value.into_text())
            }
        }
    }
}

/// Returns true if a member of this name belongs to the dialects of object frames, and cannot be a payload's.
fn is_reserved(name: &str) -> bool {
    matches!(name, "type" | "key" | "index" | "id")
}

/// Parses the text of an object frame. The codec creates object frames only from JSON objects.
fn object_of_frame(text: ByteString) -> JsonObject {
    JsonObject::parse(text).unwrap_or_else(|| ObjectBuilder::default().finish())
}

fn value_of_bytes(bytes: &Bytes) -> JsonValue {
    let text = ByteString::try_from(bytes.clone()).ok();
    text.and_then(|text| JsonValue::parse(text).ok()).unwrap_or_else(|| {
        JsonValue::Object(JsonObject::with_member(BYTES, &format!("\"{}\"", BASE64.encode(bytes))))
    })
}

/// Returns the bytes of which this text is the JSON form.
fn decode_json_form(text: &str) -> Option<Bytes> {
    let base64 = text.strip_prefix("{\"$bytes\":\"")?.strip_suffix("\"}")?;
    BASE64.decode(base64).ok().map(Bytes::from)
}

/// Returns an object without its reserved members: the value of `data` if no other member is left.
fn foreign_members(object: JsonObject) -> ByteString {
    let foreign = || object.iter().filter(|(name, _)| !is_reserved(name));
    let count = foreign().count();
    if count == 1
        && let Some(data) = object.share("data")
    {
        return data;
    }
    if count == object.len() {
        return object.into_text();
    }
    let mut rest = ObjectBuilder::with_capacity(object.text().len());
    for (name, value) in foreign() {
        rest.push(name, value);
    }
    rest.finish().into_text()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::test_json;
    use super::*;

    #[test]
    fn payloads_convert_to_every_form_and_back() {
        for (bytes, json, frame) in [
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{"index":"0","note":"77"}"#),
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{"note":"77","index":"0"}"#),
            (r#"{"note":"77"}"#, r#"{"note":"77"}"#, r#"{ "note" : "77" }"#),
            (r#"{"id":"77"}"#, r#"{"id":"77"}"#, r#"{"index":"0","data":{"id":"77"}}"#),
            ("[1]", "[1]", r#"{"index":"0","data":[1]}"#),
            ("{}", "{}", r#"{"index":"0"}"#),
            ("\u{8}\u{1}", r#"{"$bytes":"CAE="}"#, r#"{"index":"0","$bytes":"CAE="}"#),
            ("\u{8}\u{1}", r#"{"$bytes":"CAE="}"#, r#"{"data":{"$bytes":"CAE="}}"#),
        ] {
            assert_eq!(Payload::Bytes(bytes.into()).into_json(), json);
            assert_eq!(Payload::Json(json.into()).into_bytes(), bytes);
            assert_eq!(object_frame(frame).into_bytes(), bytes);
            assert_eq!(object_frame(frame).into_json(), json);
        }
    }

    #[test]
    fn only_the_json_form_of_bytes_becomes_bytes() {
        for text in [
            r#"{"$bytes":"/w"}"#,
            r#"{"$bytes":"_w=="}"#,
            r#"{"$bytes":"/w==\n"}"#,
            r#"{"$bytes":"/w==","a":"AA=="}"#,
            r#"{"$bytes":["/w=="]}"#,
            r#"{"a":{"$bytes":"/w=="}}"#,
        ] {
            assert_eq!(Payload::Json(text.into()).into_bytes(), text);
        }
        assert_eq!(object_frame(r#"{ "$bytes": "\/w==" }"#).into_bytes(), &[0xff][..]);
        assert_eq!(object_frame(r#"{"$bytes":"AA==","$bytes":"/w=="}"#).into_bytes(), &[0xff][..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever was sent, the receiver gets the same value.
        #[test]
        fn json_survives_every_form(text in prop_oneof![test_json::any_json_text(), test_json::canonical_object()]) {
            let Ok(value) = JsonValue::parse(text.as_str().into()) else { return Ok(()) };
            let text = value.into_text();
            prop_assert_eq!(Payload::Bytes(text.clone().into_bytes()).into_json(), text.clone());
            let object = Payload::Json(text.clone()).into_object();
            prop_assert!(!object.iter().any(|(name, _)| is_reserved(name)));
            prop_assert_eq!(JsonObject::parse(object.text().clone()), Some(object.clone()));
            prop_assert_eq!(object_frame(object.text()).into_json(), text);
        }

        #[test]
        fn bytes_survive_every_json_form(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if std::str::from_utf8(&bytes).is_ok_and(|text| JsonValue::parse(text.into()).is_ok()) {
                return Ok(());
            }
            let payload = Payload::Bytes(bytes.clone().into());
            prop_assert_eq!(Payload::Json(payload.clone().into_json()).into_bytes(), bytes.clone());
            prop_assert_eq!(object_frame(payload.into_object().text()).into_bytes(), bytes);
        }
    }

    fn object_frame(text: &str) -> Payload {
        Payload::ObjectFrame { text: text.into(), binary: false }
    }

    fn back_and_forth(bytes: &'static [u8]) -> Bytes {
        object_frame(Payload::Bytes(Bytes::from_static(bytes)).into_object().text()).into_bytes()
    }

    #[test]
    fn bytes_survive_an_object_frame() {
        for bytes in [
            b"\x12\xff\x00".as_slice(),
            b"",
            b"plain text",
            br#"{"offer":"x"}"#,
            br#"{"data":"x"}"#,
            br#"{"data":{"data":1},"id":7}"#,
            br#"{"type":"offer","sdp":"v=0"}"#,
            b"5",
            b"null",
            br#"[1,{"a":[]}]"#,
        ] {
            assert_eq!(back_and_forth(bytes), bytes, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_survive_a_json_value() {
        for bytes in [b"\x12\xff\x00".as_slice(), b"", b"plain text", br#"{"offer":"x"}"#, b"5", b"null"] {
            let json = Payload::Bytes(Bytes::from_static(bytes)).into_json();
            assert_eq!(Payload::Json(json).into_bytes(), bytes, "{bytes:?}");
        }
    }

    #[test]
    fn json_survives_an_object_frame() {
        for text in [r#"{"offer":{"sdp":"v"}}"#, r#""x""#, r#"{"id":1,"data":2}"#, "[1]"] {
            let object = Payload::Json(text.into()).into_object();
            assert_eq!(object_frame(object.text()).into_json(), text);
        }
    }

    #[test]
    fn a_sole_data_member_is_the_payload() {
        assert_eq!(object_frame(r#"{"data":"x","index":"0"}"#).into_bytes(), r#""x""#);
        assert_eq!(object_frame(r#"{"data":"x","more":1}"#).into_bytes(), r#"{"data":"x","more":1}"#);
        assert_eq!(object_frame(r#"{"offer":{"sdp":"v"}}"#).into_bytes(), r#"{"offer":{"sdp":"v"}}"#);
    }

    #[test]
    fn bytes_that_are_not_json_are_wrapped() {
        let object = Payload::Bytes(Bytes::from_static(&[0xff])).into_object();
        assert_eq!(object.into_text(), r#"{"$bytes":"/w=="}"#);
    }
}
