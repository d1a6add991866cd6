//! Costly work on threads of its own: as many at once as there are processors, and a short queue before them. Comparing
//! passwords must hold up neither leases nor itself: beyond the queue it is refused at once.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use rackhand_functions::host::{Overloaded, Work};
use tokio::{sync::Semaphore, time::timeout};

/// So many wait for a processor.
const QUEUE: usize = 64;
/// And so long.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

pub struct Workers {
    /// Those that work and those that wait.
    places: Arc<Semaphore>,
    processors: Arc<Semaphore>,
}

impl Workers {
    pub fn new() -> Self {
        Self::with(std::thread::available_parallelism().map_or(2, std::num::NonZero::get), QUEUE)
    }

    fn with(processors: usize, queue: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(processors + queue)),
            processors: Arc::new(Semaphore::new(processors)),
        }
    }
}

impl Work for Workers {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'_, Result<(), Overloaded>> {
        Box::pin(async move {
            let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Overloaded)?;
            let processor = timeout(LONGEST_WAIT, Arc::clone(&self.processors).acquire_owned());
            let processor = processor.await.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
            // Both are held until it is done, also when the caller is gone by then.
            let done = tokio::task::spawn_blocking(move || {
                work();
                drop((place, processor));
            });
            done.await.map_err(|_| Overloaded)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn beyond_processors_and_queue_work_is_refused_at_once() {
        let workers = Arc::new(Workers::with(2, 1));
        let (open, gate) = mpsc::channel::<()>();
        let (gate, done) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicUsize::new(0)));
        let start = || {
            let (workers, gate, done) = (Arc::clone(&workers), Arc::clone(&gate), Arc::clone(&done));
            tokio::spawn(async move {
                let work = move || {
                    gate.lock().unwrap().recv().unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                };
                workers.run(Box::new(work)).await
            })
        };
        let running: Vec<_> = (0..3).map(|_| start()).collect();
        while workers.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(start().await.unwrap().is_err(), "no place is left");
        for _ in 0..3 {
            open.send(()).unwrap();
        }
        for task in running {
            task.await.unwrap().unwrap();
        }
        assert_eq!(done.load(Ordering::SeqCst), 3);
        assert_eq!(workers.places.available_permits(), 3, "all places are free again");
    }
}
