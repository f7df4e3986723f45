//! Transactions of another application on a topic, through Kafka's Java producer.
//!
//! Invariant: the program ends with its owner, because it ends with its standard input.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::kafka_tools::program;

/// How long a test or a broker that restarts may keep an answer waiting.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A producer that runs one transaction after the other. Dropping it kills it.
pub struct ForeignTransactions {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl ForeignTransactions {
    /// Connects, and opens nothing yet. `timeout`: how long the broker keeps a transaction open
    /// whose producer is gone; at most `transaction.max.timeout.ms`, which is 15 minutes.
    pub async fn start(bootstrap: &str, topic: &str, timeout: Duration) -> Result<Self> {
        let timeout_ms = timeout.as_millis().to_string();
        let arguments = [bootstrap, topic, &timeout_ms];
        let mut command = Command::from(program("ForeignTransactions.java", &arguments).await?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let commands = child.stdin.take().context("its standard input is a pipe")?;
        let answers = child.stdout.take().context("its standard output is a pipe")?;
        let answers = BufReader::new(answers).lines();
        let mut transactions = ForeignTransactions { child, commands, answers };
        transactions.expect("ready").await?;
        Ok(transactions)
    }

    /// Opens a transaction. Returns when a record of it is on each of these partitions.
    pub async fn begin(&mut self, partitions: impl IntoIterator<Item = i32>) -> Result<()> {
        let words = partitions.into_iter().map(|partition| format!(" {partition}"));
        self.ask(&format!("begin{}", words.collect::<String>()), "open").await
    }

    pub async fn commit(&mut self) -> Result<()> {
        self.ask("commit", "committed").await
    }

    pub async fn abort(&mut self) -> Result<()> {
        self.ask("abort", "aborted").await
    }

    /// Ends the producer. What is open stays open until its timeout.
    pub async fn die(mut self) -> Result<()> {
        self.child.kill().await.context("killing the transactions' producer")
    }

    async fn ask(&mut self, command: &str, answer: &str) -> Result<()> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        self.expect(answer).await.with_context(|| format!("asked to {command}"))
    }

    async fn expect(&mut self, answer: &str) -> Result<()> {
        let line = tokio::time::timeout(ANSWER_LIMIT, self.answers.next_line()).await;
        let line = line.with_context(|| format!("no answer within {ANSWER_LIMIT:?}"))??;
        let line = line.context("the transactions' producer ended without an answer")?;
        ensure!(line == answer, "the transactions' producer answered {line:?}, not {answer:?}");
        Ok(())
    }
}
