//! The process's certificate of the mesh and its key, sealed beside the configuration: a container that is started anew
//! is known to its peers before any operator answers.
//!
//! The key leaves the process, but neither the pod nor its seal.

use std::fs;
use std::io;
use std::path::PathBuf;

use prost::Message;

use super::{Error, Store, at};

/// How the file's name ends. Never that of a configuration.
const SUFFIX: &str = ".certificate";

/// A certificate as the operator signed it.
#[derive(Clone, PartialEq, Message)]
pub(in crate::push) struct Signed {
    /// The certificate and its issuers, PEM.
    #[prost(string, tag = "1")]
    pub(in crate::push) chain: String,
    /// Its key, PKCS #8 DER.
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::push) key: Vec<u8>,
}

impl Store {
    /// Replaces the certificate that is kept.
    pub(in crate::push) fn save_certificate(&self, signed: &Signed) -> Result<(), Error> {
        self.write(&self.certificate(), signed.encode_to_vec())
    }

    /// The certificate that is kept, if there is one.
    pub(in crate::push) fn load_certificate(&self) -> Result<Option<Signed>, Error> {
        let path = self.certificate();
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
            Ok(_) => self.open_file(&path).map(Some),
        }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}", self.prefix().trim_end_matches('-')))
    }
}
