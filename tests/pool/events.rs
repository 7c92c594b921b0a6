//! Events of `tracing` in a program whose tests set subscribers for their own threads.

use std::sync::Once;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

/// Keeps the events of this process enabled. tracing keeps for each event whether any subscriber wants it, and may take it
/// for unwanted for ever if a thread without a subscriber has the first such event while another thread sets its own.
pub(crate) fn keep_events_enabled() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A test that runs alone in its process may have set another one.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LevelFilter::DEBUG));
    });
    tracing::callsite::rebuild_interest_cache();
}
