//! Reads a topic for a test, from its beginning, through Kafka's console consumer, which is started once per reader: a JVM
//! per look at the topic would cost a second or two each time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::kafka_tools::formatted;
use crate::process::Process;
use crate::repository;

/// Control characters, which JSON writes as escapes and keys and headers do not have.
const FIELD: &str = "\u{1f}";
const HEADER: &str = "\u{1e}";
const RECORDS_SHOWN_MAX: usize = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A record as it stands on the topic. Key and value are text; one that is not there (null) reads `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Milliseconds since 1970, as the producer or the broker set it.
    pub timestamp_ms: i64,
    pub partition: i32,
    pub offset: i64,
    pub headers: Vec<(String, String)>,
    pub key: String,
    pub value: String,
}

impl TopicRecord {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A console consumer that runs until this is dropped. It survives a broker that is down, and a topic that comes later.
pub struct TopicReader {
    dir: PathBuf,
    process: Process,
    output: Mutex<Output>,
}

/// How far the console consumer's output is read: a topic of many records is not parsed anew at each look.
struct Output {
    file: File,
    unfinished_line: Vec<u8>,
    /// The next offset of each partition.
    positions: HashMap<i32, i64>,
    records: Vec<TopicRecord>,
}

impl TopicReader {
    /// Reads all partitions of `topic`, from the first record that is there.
    pub async fn start(bootstrap: &str, topic: &str) -> Result<TopicReader> {
        static READERS: AtomicU32 = AtomicU32::new(0);
        let number = READERS.fetch_add(1, Ordering::Relaxed);
        let dir = repository::data_dir()?.join(format!("test/topic-readers/{}-{number}", std::process::id()));
        repository::create_dir(&dir)?;
        let mut command = formatted(bootstrap, topic, FIELD, HEADER).await?;
        command.arg("--from-beginning");
        for property in [
            // A topic that does not exist yet is looked for again after this long.
            "metadata.max.age.ms=500",
            "reconnect.backoff.max.ms=500",
            // Nobody asks where this reader was.
            "enable.auto.commit=false",
        ] {
            command.args(["--command-property", property]);
        }
        command.stdout(File::create(dir.join("records"))?);
        let process = Process::spawn_with_stdout("the console consumer", &mut command, &dir.join("log"))?;
        let file = File::open(dir.join("records"))?;
        let output = Mutex::new(Output::new(file));
        Ok(TopicReader { dir, process, output })
    }

    /// What was read so far; in the order of their offsets within a partition, in no order between partitions.
    pub fn records(&self) -> Result<Vec<TopicRecord>> {
        self.look(<[_]>::to_vec)
    }

    /// What was read since this was called before, for who reads a long topic and keeps what he needs of it.
    pub fn take(&self) -> Result<Vec<TopicRecord>> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.read_on()?;
        Ok(mem::take(&mut output.records))
    }

    /// All that was read, once that is `enough`. The error after `limit` shows what there was.
    pub async fn wait_for(
        &self,
        enough: impl Fn(&[TopicRecord]) -> bool,
        limit: Duration,
    ) -> Result<Vec<TopicRecord>> {
        let deadline = Instant::now() + limit;
        loop {
            let exited = self.process.exit_status();
            if let Some(records) = self.look(|records| enough(records).then(|| records.to_vec()))? {
                return Ok(records);
            }
            if let Some(status) = exited {
                bail!("the console consumer ended ({status})\n{}", self.process.log_tail());
            }
            if Instant::now() > deadline {
                let records = self.records()?;
                let last = &records[records.len().saturating_sub(RECORDS_SHOWN_MAX)..];
                bail!(
                    "not what was waited for within {limit:?}, but {} records, the last of them {last:#?}\n{}",
                    records.len(),
                    self.process.log_tail()
                );
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn look<T>(&self, at: impl FnOnce(&[TopicRecord]) -> T) -> Result<T> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.read_on()?;
        Ok(at(&output.records))
    }
}

impl Output {
    fn new(file: File) -> Output {
        Output { file, unfinished_line: Vec::new(), positions: HashMap::new(), records: Vec::new() }
    }

    fn read_on(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.unfinished_line)?;
        let Some(end) = self.unfinished_line.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.unfinished_line.split_off(end + 1);
        let lines = mem::replace(&mut self.unfinished_line, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            let record = parse(line)?;
            // A consumer that lost its group, as happens while a broker is down, begins anew. A record that was read twice
            // must not look like one that was written twice.
            let position = self.positions.entry(record.partition).or_default();
            if record.offset >= *position {
                *position = record.offset + 1;
                self.records.push(record);
            }
        }
        Ok(())
    }
}

impl Drop for TopicReader {
    fn drop(&mut self) {
        // The process still runs, and may keep writing to what has no name any more.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `CreateTime:… Partition:… Offset:… headers key value`, separated as said above. Only the value may hold what it likes.
fn parse(line: &str) -> Result<TopicRecord> {
    let fields: Vec<_> = line.splitn(6, FIELD).collect();
    let [timestamp, partition, offset, headers, key, value] = fields[..] else {
        bail!("the console consumer printed what is no record: {line:?}");
    };
    let number = |field: &str| -> Result<i64> {
        let number = field.split_once(':').and_then(|(_, number)| number.parse().ok());
        number.with_context(|| format!("no number in {field:?} of {line:?}"))
    };
    let headers = match headers {
        "NO_HEADERS" => Vec::new(),
        headers => headers
            .split(HEADER)
            .map(|header| {
                let (name, value) =
                    header.split_once(':').with_context(|| format!("no header: {header:?}"))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect::<Result<_>>()?,
    };
    Ok(TopicRecord {
        timestamp_ms: number(timestamp)?,
        partition: number(partition)?.try_into()?,
        offset: number(offset)?,
        headers,
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_read_with_all_its_parts() {
        let line = "CreateTime:17\u{1f}Partition:2\u{1f}Offset:40\u{1f}ce_id:a:b\u{1e}ce_time:\u{1f}key\u{1f}{\"a\": \"\t,:\"}";
        assert_eq!(
            parse(line).unwrap(),
            TopicRecord {
                timestamp_ms: 17,
                partition: 2,
                offset: 40,
                headers: vec![("ce_id".to_owned(), "a:b".to_owned()), ("ce_time".to_owned(), String::new())],
                key: "key".to_owned(),
                value: "{\"a\": \"\t,:\"}".to_owned(),
            }
        );
    }

    #[test]
    fn a_record_that_is_read_again_is_not_told_twice() {
        let path = std::env::temp_dir().join(format!("topic-reader-test-{}", std::process::id()));
        let line = |partition: i32, offset: i64| {
            format!(
                "CreateTime:1\u{1f}Partition:{partition}\u{1f}Offset:{offset}\u{1f}NO_HEADERS\u{1f}k\u{1f}v"
            )
        };
        let lines =
            [line(0, 0), line(0, 1), line(1, 0), line(0, 0), line(0, 1), line(0, 2), line(1, 1)].join("\n");
        fs::write(&path, lines).unwrap();
        let mut output = Output::new(File::open(&path).unwrap());
        output.read_on().unwrap();
        let read: Vec<_> = output.records.iter().map(|record| (record.partition, record.offset)).collect();
        assert_eq!(read, [(0, 0), (0, 1), (1, 0), (0, 2)], "and the last line is not finished");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_record_without_headers_has_none() {
        let line = "NoTimestamp:-1\u{1f}Partition:0\u{1f}Offset:0\u{1f}NO_HEADERS\u{1f}null\u{1f}v";
        assert!(parse(line).unwrap().headers.is_empty());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(parse("Processed a total of 0 messages").is_err());
        assert!(parse("CreateTime:x\u{1f}Partition:0\u{1f}Offset:0\u{1f}h:v\u{1f}k\u{1f}v").is_err());
    }

    proptest! {
        #[test]
        fn a_printed_record_is_read_as_it_was(
            timestamp_ms in any::<i64>(), partition in any::<i32>(), offset in any::<i64>(),
            headers in prop::collection::vec(("[a-z_-]{1,12}", "[^\u{1e}\u{1f}\n]{0,20}"), 1..5),
            key in "[^\u{1e}\u{1f}\n]{0,40}", value in "[^\n]{0,60}",
        ) {
            let printed: Vec<_> = headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            let printed = printed.join(HEADER);
            let line = format!(
                "CreateTime:{timestamp_ms}{FIELD}Partition:{partition}{FIELD}Offset:{offset}{FIELD}{printed}{FIELD}{key}{FIELD}{value}"
            );
            let record = TopicRecord { timestamp_ms, partition, offset, headers, key, value };
            prop_assert_eq!(parse(&line).unwrap(), record);
        }

        #[test]
        fn any_line_is_a_record_or_refused(line in "[^\n]{0,80}|([A-Za-z]{0,5}:?[0-9]{0,20}\u{1f}){3,7}[^\n]{0,20}") {
            if let Ok(record) = parse(&line) {
                prop_assert!(line.contains(&record.value));
            }
        }
    }
}
