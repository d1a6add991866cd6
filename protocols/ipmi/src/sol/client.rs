//! A console of a [`Client`]'s session.

use super::{
    activate::{SolError, SolOptions, activate},
    stream::{SolChannel, SolStream},
};
use crate::{Client, Error, PayloadChannel, wire::packet::PayloadKind};

impl Client {
    /// Activates SOL in this session; one console for each session. The session lives at least as long as the stream.
    pub async fn sol(&self, options: SolOptions) -> Result<SolStream, SolError> {
        // Before the activation: the first characters may come with its answer.
        let channel = self.payloads(PayloadKind::SOL)?;
        let options = SolOptions { session_id: Some(self.opened().session), ..options };
        let activated = activate(self, &options).await?;
        Ok(SolStream::start(self.clone(), channel, activated))
    }
}

impl SolChannel for PayloadChannel {
    async fn send(&mut self, payload: Vec<u8>) -> Result<(), Error> {
        PayloadChannel::send(self, &payload)
    }

    async fn recv(&mut self) -> Result<Vec<u8>, Error> {
        match PayloadChannel::recv(self).await {
            Some(payload) => Ok(payload),
            None => Err(self.closed().await.err().unwrap_or(Error::Closed)),
        }
    }
}
