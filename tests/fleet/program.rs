//! A process of a fleet: this test binary, started again.

use std::{collections::VecDeque, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::part::{Counts, Order, PART, Part, Sent, Step, Told};

/// How long a test waits for something that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A signal for a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Stop,
    Continue,
}

/// Sends a signal to a process.
pub(crate) async fn signal(process: u32, signal: Signal) {
    let name = match signal {
        Signal::Stop => "STOP",
        Signal::Continue => "CONT",
    };
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .status();
    assert!(sent.await.unwrap().success(), "{name} {process}");
}

pub(crate) struct Program {
    child: Child,
    told: mpsc::UnboundedReceiver<Told>,
    /// What was told and not asked for yet.
    unheard: VecDeque<Told>,
}

impl Program {
    pub(crate) async fn start(part: &Part) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::worker", "--ignored", "--nocapture"])
            .env(PART, serde_json::to_string(part).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // The harness prints the test's name on the same line.
                if let Some((_, line)) = line.split_once("@@ ") {
                    let _ = tell.send(serde_json::from_str(line).unwrap());
                }
            }
        });
        let mut program = Self {
            child,
            told,
            unheard: VecDeque::new(),
        };
        program
            .hears("ready", |told| matches!(told, Told::Ready).then_some(()))
            .await;
        program
    }

    pub(crate) async fn order(&mut self, order: Order) {
        let line = serde_json::to_string(&order).unwrap() + "\n";
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).await.unwrap();
    }

    /// Waits until the program tells something, and returns it. What it told before stays unheard.
    pub(crate) async fn hears<T>(&mut self, what: &str, find: impl Fn(&Told) -> Option<T>) -> T {
        for (at, told) in self.unheard.iter().enumerate() {
            if let Some(found) = find(told) {
                self.unheard.remove(at);
                return found;
            }
        }
        let hearing = async {
            loop {
                let Some(told) = self.told.recv().await else {
                    panic!("the program ended before it told: {what}");
                };
                match find(&told) {
                    Some(found) => return found,
                    None => self.unheard.push_back(told),
                }
            }
        };
        let Ok(found) = timeout(LIMIT, hearing).await else {
            panic!(
                "the program did not tell: {what}. It told {:?}",
                self.unheard
            );
        };
        found
    }

    pub(crate) async fn sent(&mut self) -> Sent {
        let sent = |told: &Told| match told {
            Told::Sent(sent) => Some(sent.clone()),
            _ => None,
        };
        self.hears("sent", sent).await
    }

    pub(crate) async fn send(&mut self, requests: usize) -> Sent {
        self.order(Order::Send(requests)).await;
        self.sent().await
    }

    pub(crate) async fn halt_at(&mut self, step: Step) {
        self.order(Order::Halt(Some(step))).await;
    }

    pub(crate) async fn is_at(&mut self, step: Step) {
        let at = |told: &Told| matches!(told, Told::At(at) if *at == step).then_some(());
        self.hears(&format!("at {step:?}"), at).await;
    }

    pub(crate) async fn calls(&mut self) {
        self.hears("calls", |told| matches!(told, Told::Calls).then_some(()))
            .await;
    }

    pub(crate) async fn saved(&mut self) {
        self.hears("saved", |told| matches!(told, Told::Saved).then_some(()))
            .await;
    }

    pub(crate) async fn counts(&mut self) -> Counts {
        self.order(Order::Count).await;
        let counted = |told: &Told| match told {
            Told::Counted(counts) => Some(counts.clone()),
            _ => None,
        };
        self.hears("counted", counted).await
    }

    /// What the program has told until now and no test has asked for. Forgets it.
    pub(crate) fn take_unheard(&mut self) -> Vec<Told> {
        while let Ok(told) = self.told.try_recv() {
            self.unheard.push_back(told);
        }
        self.unheard.drain(..).collect()
    }

    pub(crate) async fn signal(&self, with: Signal) {
        signal(self.child.id().unwrap(), with).await;
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
