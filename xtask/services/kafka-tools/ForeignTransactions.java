import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Runs another application's transactions on a topic. Each line of standard input is a command:
 *
 * <pre>
 * begin 0 2   opens a transaction, sends a record to these partitions, answers "open"
 * commit      answers "committed"
 * abort       answers "aborted"
 * die         ends at once, and so does the end of the input
 * </pre>
 *
 * The broker keeps the transaction of a dead producer open until the transaction's timeout.
 * The first answer is "ready". An error is answered "failed: …" and ends the program.
 * Arguments: bootstrap servers, topic, the timeout in milliseconds. Run from its source (JEP 330).
 */
class ForeignTransactions {
    public static void main(String[] arguments) {
        var topic = arguments[1];
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        // Another producer with the same id would abort what this one leaves open.
        var id = "foreign transactions " + ProcessHandle.current().pid() + " on " + topic;
        properties.put("transactional.id", id);
        properties.put("transaction.timeout.ms", arguments[2]);
        try {
            var producer =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
            producer.initTransactions();
            System.out.println("ready");
            var input = new BufferedReader(new InputStreamReader(System.in));
            for (String line; (line = input.readLine()) != null; ) {
                var words = List.of(line.split(" "));
                switch (words.get(0)) {
                    case "begin" -> {
                        producer.beginTransaction();
                        for (var word : words.subList(1, words.size())) {
                            var partition = Integer.valueOf(word);
                            producer.send(new ProducerRecord<>(topic, partition, "foreign", "{}"));
                        }
                        producer.flush();
                        System.out.println("open");
                    }
                    case "commit" -> {
                        producer.commitTransaction();
                        System.out.println("committed");
                    }
                    case "abort" -> {
                        producer.abortTransaction();
                        System.out.println("aborted");
                    }
                    case "die" -> Runtime.getRuntime().halt(0);
                    default -> throw new IllegalArgumentException(line);
                }
            }
        } catch (Exception failure) {
            System.out.println("failed: " + failure);
        }
        // `KafkaProducer.close` would abort the open transaction.
        Runtime.getRuntime().halt(1);
    }
}
