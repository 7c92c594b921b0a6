//! The announcement of a drain, which readiness and endless responses react to.

use super::Pools;

impl Pools {
    /// Waits until a drain is announced: by `server::serve` at its signal, by [`shutdown`](Self::shutdown), or by
    /// [`announce_drain`](Self::announce_drain).
    ///
    /// An endless response, such as a stream of events, should end then, because a graceful shutdown waits for it. The
    /// future keeps no pool alive, and can be awaited in any runtime.
    ///
    /// ```
    /// use axum::response::sse::{Event, Sse};
    /// use futures_util::{Stream, StreamExt, stream};
    /// use tower_offload::Pools;
    ///
    /// fn events(pools: &Pools) -> Sse<impl Stream<Item = Result<Event, std::io::Error>>> {
    ///     let endless = stream::repeat_with(|| Ok(Event::default().data("tick")));
    ///     Sse::new(endless.take_until(pools.draining()))
    /// }
    /// # drop(events(&Pools::default()));
    /// ```
    pub fn draining(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let drain = self.drain().clone();
        async move { drain.given().await }
    }

    /// Announces that the pools will drain soon: readiness fails, and [`draining`](Self::draining) completes. The pools
    /// still take tasks until [`shutdown`](Self::shutdown).
    ///
    /// `server::serve` calls this at its signal. Call it at yours under `axum::serve` or tonic, some seconds before the
    /// server stops accepting.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let pools = tower_offload::Pools::default();
    /// let draining = pools.draining();
    /// pools.announce_drain();
    /// draining.await;
    /// assert!(pools.is_draining());
    /// # }
    /// ```
    pub fn announce_drain(&self) {
        self.drain().give();
    }

    /// Whether a drain was announced.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain().is_given()
    }
}
