//! The keys and certificates of a text or file, decrypted.

use std::borrow::Cow;

use super::{
    pbes2::{self, Failure},
    pkcs12,
};
use crate::{
    secret::Secret,
    text::pem::{Block, Pem},
};

/// How something is encrypted with a pass phrase.
#[derive(Clone, Copy)]
enum Form {
    Key,
    Archive,
}

impl Form {
    /// `None` for what is not encrypted.
    fn of(block: &Block) -> Option<Self> {
        match &*block.label {
            "ENCRYPTED PRIVATE KEY" => Some(Self::Key),
            // OpenSSL writes no label for an archive; others do.
            "" | "PKCS12" if pkcs12::is_archive(&block.der) => Some(Self::Archive),
            "" if pbes2::is_encrypted_key(&block.der) => Some(Self::Key),
            _ => None,
        }
    }
}

/// Reads a file, and decrypts the keys and archives in it. What is not encrypted stays as it is. Fails with the reason, to be said after "the
/// private key cannot be used:".
pub(crate) fn decrypted(file: &[u8], pass_phrase: &Secret) -> Result<Pem, Cow<'static, str>> {
    let pem = Pem::read(file);
    // A file or a shell adds a line break, which no pass phrase has.
    let pass_phrase = pass_phrase.expose().trim_end_matches(['\r', '\n']);
    let mut blocks = Vec::with_capacity(pem.blocks.len());
    for block in &pem.blocks {
        match Form::of(block) {
            None => blocks.push(block.clone()),
            Some(Form::Key) => {
                let key = pbes2::decrypt_key(&block.der, pass_phrase)
                    .map_err(|failure| reason(Form::Key, failure))?;
                blocks.push(Block::new("PRIVATE KEY", &key));
            }
            Some(Form::Archive) => {
                let inside = pkcs12::read(&block.der, pass_phrase)
                    .map_err(|failure| reason(Form::Archive, failure))?;
                blocks.extend(inside);
            }
        }
    }
    Ok(Pem { blocks, ..pem })
}

fn reason(form: Form, failure: Failure) -> Cow<'static, str> {
    let convert = match form {
        Form::Key => {
            "convert it with `openssl pkcs8 -topk8 -in <file> -out <new file>`, with `-provider legacy -provider default` if \
             openssl does not know its cipher"
        }
        Form::Archive => {
            "convert it with `openssl pkcs12 -legacy -in <file> -out <new file>`, whose new file can be read with the same \
             pass phrase"
        }
    };
    let what = match form {
        Form::Key => "the key",
        Form::Archive => "the PKCS #12 archive",
    };
    match failure {
        Failure::WrongPassPhrase => {
            format!("the pass phrase is not that of {what}, or the file is damaged").into()
        }
        Failure::Damaged => format!(
            "{what} is damaged, or written in BER: try whether openssl reads it, and {convert}"
        )
        .into(),
        Failure::Unsupported(how) => {
            format!("{what} is encrypted with {how}, and only PBKDF2 with AES is read: {convert}")
                .into()
        }
    }
}
