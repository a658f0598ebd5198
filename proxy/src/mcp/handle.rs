//! Sealed handles (decisions 17): what a client holds for us between requests. Encrypted and
//! authenticated, bound to purpose, gateway, principal and expiry; possession alone opens nothing.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Format version; stands before every handle and is authenticated with it.
const VERSION: &str = "gw1.";
const KEY_ID_LEN: usize = 4;
const EXPIRY_LEN: usize = 8;
/// Longest handle that is looked at: an upstream's state of 64 KiB and its envelope.
const MAX_HANDLE: usize = 128 * 1024;

/// Bytes of a key's secret.
pub const SECRET_LEN: usize = 32;

/// What a handle is for; one kind never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// `Mcp-Session-Id`
    Session,
    /// A list's `cursor`.
    Cursor,
    /// `requestState`
    RequestState,
    /// `taskId`
    Task,
    /// An SSE event's id, for `Last-Event-ID`.
    Event,
}

impl Purpose {
    fn tag(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Cursor => 2,
            Self::RequestState => 3,
            Self::Task => 4,
            Self::Event => 5,
        }
    }
}

/// Whom a handle belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The gateway's uid.
    pub gateway_uid: &'a str,
    /// The principal's stable text, issuer included.
    pub principal: &'a str,
}

/// The handle is not ours, not for this caller, or over. Nothing says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown handle")]
pub struct Unsealed;

/// A handle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret is not 32 bytes.
    #[error("a handle key has {0} bytes, not 32")]
    Secret(usize),
    /// The random generator or the cipher refused.
    #[error("sealing a handle failed")]
    Crypto,
    /// The content can't be written as JSON.
    #[error("a handle's content can't be written")]
    Content(#[source] serde_json::Error),
}

struct Key {
    id: [u8; KEY_ID_LEN],
    aead: LessSafeKey,
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, Error> {
        if secret.len() != SECRET_LEN {
            return Err(Error::Secret(secret.len()));
        }
        let mut named = Zeroizing::new(b"mcpmesh handle key id".to_vec());
        named.extend_from_slice(secret);
        let mut id = [0; KEY_ID_LEN];
        id.iter_mut().zip(digest(&SHA256, &named).as_ref()).for_each(|(to, from)| *to = *from);
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| Error::Crypto)?;
        Ok(Self { id, aead: LessSafeKey::new(key) })
    }
}

/// The keys of one gateway: the first seals, both open. Random 96-bit nonces allow 2^32 handles a
/// key, so rotate well before.
pub struct KeyRing {
    current: Key,
    previous: Option<Key>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("current", &hex::encode(self.current.id)).finish_non_exhaustive()
    }
}

/// A fresh secret for a key.
///
/// # Errors
/// [`Error::Crypto`] without randomness.
pub fn generate_secret() -> Result<Zeroizing<[u8; SECRET_LEN]>, Error> {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    rand::fill(secret.as_mut_slice()).map_err(|_| Error::Crypto)?;
    Ok(secret)
}

impl KeyRing {
    /// A ring of the sealing key and, while rotating, the one before it.
    ///
    /// # Errors
    /// [`Error::Secret`]
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Result<Self, Error> {
        Ok(Self { current: Key::new(current)?, previous: previous.map(Key::new).transpose()? })
    }

    /// A ring that lives as long as the process.
    ///
    /// # Errors
    /// [`Error::Crypto`] without randomness.
    pub fn generate() -> Result<Self, Error> {
        Self::new(generate_secret()?.as_slice(), None)
    }

    /// Seals `content` until `expires_at` (seconds since 1970).
    ///
    /// # Errors
    /// [`Error`]
    pub fn seal<T: Serialize>(
        &self,
        purpose: Purpose,
        binding: &Binding<'_>,
        expires_at: u64,
        content: &T,
    ) -> Result<String, Error> {
        let mut bytes = expires_at.to_be_bytes().to_vec();
        serde_json::to_writer(&mut bytes, content).map_err(Error::Content)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| Error::Crypto)?;
        let aad = Aad::from(associated(purpose, binding));
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.current.aead.seal_in_place_append_tag(sealing, aad, &mut bytes).map_err(|_| Error::Crypto)?;
        let mut whole = Vec::with_capacity(KEY_ID_LEN + NONCE_LEN + bytes.len());
        whole.extend_from_slice(&self.current.id);
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&bytes);
        let mut text = String::with_capacity(VERSION.len() + whole.len() * 4 / 3 + 4);
        text.push_str(VERSION);
        URL_SAFE_NO_PAD.encode_string(&whole, &mut text);
        Ok(text)
    }

    /// Opens a handle at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`Unsealed`] for anything but a live handle of this purpose, gateway and principal.
    pub fn open<T: DeserializeOwned>(
        &self,
        purpose: Purpose,
        binding: &Binding<'_>,
        now: u64,
        handle: &str,
    ) -> Result<T, Unsealed> {
        if handle.len() > MAX_HANDLE {
            return Err(Unsealed);
        }
        let encoded = handle.strip_prefix(VERSION).ok_or(Unsealed)?;
        let mut whole = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Unsealed)?;
        let (head, sealed) = whole.split_at_mut_checked(KEY_ID_LEN + NONCE_LEN).ok_or(Unsealed)?;
        let (id, nonce) = head.split_at(KEY_ID_LEN);
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let key = keys.into_iter().find(|key| key.id == id).ok_or(Unsealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealed)?;
        let aad = Aad::from(associated(purpose, binding));
        let opened = key.aead.open_in_place(nonce, aad, sealed).map_err(|_| Unsealed)?;
        let (expiry, content) = opened.split_first_chunk::<EXPIRY_LEN>().ok_or(Unsealed)?;
        if now >= u64::from_be_bytes(*expiry) {
            return Err(Unsealed);
        }
        serde_json::from_slice(content).map_err(|_| Unsealed)
    }
}

/// What is authenticated beside the content; lengths keep neighbours apart.
fn associated(purpose: Purpose, binding: &Binding<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(VERSION.len() + 9 + binding.gateway_uid.len() + binding.principal.len());
    out.extend_from_slice(VERSION.as_bytes());
    out.push(purpose.tag());
    for part in [binding.gateway_uid, binding.principal] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests;
