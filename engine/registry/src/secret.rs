//! Text that must not be seen: wiped when dropped, and no `Debug`, `Display` or serialisation that shows it.

use std::fmt;

use zeroize::Zeroizing;

/// A password, token or Authorization value.
#[derive(Clone, Default)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself; call it only where it goes on the wire.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes this secret out of a text that came from the network: some servers echo what they were sent.
    pub(crate) fn redact(&self, text: &str) -> String {
        // Very short secrets would blank ordinary words, and are no secrets worth the name.
        if self.0.len() < 4 {
            return text.to_owned();
        }
        text.replace(self.0.as_str(), "[redacted]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Option<String> as serde::Deserialize>::deserialize(deserializer)
            .map(|text| Self::new(text.unwrap_or_default()))
    }
}
