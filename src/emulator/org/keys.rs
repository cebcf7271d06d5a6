//! The key of the connected app.

use super::Org;
use crate::emulator::state::keys::Key;

/// The key of the connected app.
impl Org {
    /// The private key for the certificate of the connected app: RSA, 2048 bits, as PKCS#8 PEM
    /// (`BEGIN PRIVATE KEY`).
    ///
    /// It signs the assertions of the JWT bearer flow and of `private_key_jwt` client
    /// authentication. Each process makes a new key on first use; all its orgs share it.
    pub fn jwt_private_key(&self) -> String {
        Key::of_app().pkcs8_pem()
    }

    /// The [private key](Self::jwt_private_key) in the older form of `openssl genrsa`: PKCS#1 PEM
    /// (`BEGIN RSA PRIVATE KEY`).
    pub fn jwt_private_key_pkcs1(&self) -> String {
        Key::of_app().pkcs1_pem()
    }

    /// The public half of the [private key](Self::jwt_private_key), as PEM (`BEGIN PUBLIC KEY`).
    pub fn jwt_public_key(&self) -> String {
        Key::of_app().public_pem()
    }
}
