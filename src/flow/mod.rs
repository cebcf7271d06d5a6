//! The ways to obtain a session: each is a [`RefreshFn`](crate::RefreshFn) that the layer can be made with.
//!
//! A flow holds what it needs to log in, and nothing that changes: the newest refresh token is the layer's to keep. It
//! sends its own requests with an [`HttpClient`], one for each time that it is called, and never repeats one by itself,
//! since a request that got lost may have used up what it carried.
//!
//! | flow | needs | good for |
//! |---|---|---|
//! | [`RefreshToken`] | a refresh token from a user's authorization | acting for a user who consented once |
//! | [`ClientCredentials`] | an app with a Run As user, on My Domain | server to server, without a user |

mod client_credentials;
mod refresh_token;

pub use client_credentials::ClientCredentials;
pub use refresh_token::RefreshToken;

pub use crate::transport::HttpClient;
