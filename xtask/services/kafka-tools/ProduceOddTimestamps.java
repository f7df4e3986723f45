import java.io.DataInputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.stream.IntStream;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.ProduceRequestData;
import org.apache.kafka.common.message.ProduceRequestData.PartitionProduceData;
import org.apache.kafka.common.message.ProduceRequestData.TopicProduceData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.SimpleRecord;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.utils.Crc32C;

/**
 * Writes records with a timestamp that Kafka's own producer does not let through, but a broker does.
 * Arguments: the broker, topic, number of its partitions, timestamp, batches for each partition,
 * records of each batch. The broker must lead all partitions. Run from its source (JEP 330).
 */
class ProduceOddTimestamps {
    /** The newest version that Kafka 3.0 knows and that names topics. */
    private static final short VERSION = 9;
    private static final int TIMEOUT_MS = 30_000;
    // Where a batch's fields stand (Kafka protocol, record batch).
    private static final int CRC = 17;
    private static final int ATTRIBUTES = 21;
    private static final int BASE_TIMESTAMP = 27;
    private static final int MAX_TIMESTAMP = 35;

    public static void main(String[] arguments) throws IOException {
        var address = arguments[0].split(":");
        var topic = arguments[1];
        var partitions = Integer.parseInt(arguments[2]);
        var timestamp = Long.parseLong(arguments[3]);
        var batches = Integer.parseInt(arguments[4]);
        var records = Integer.parseInt(arguments[5]);
        try (var socket = new Socket(address[0], Integer.parseInt(address[1]))) {
            socket.setTcpNoDelay(true);
            for (var number = 0; number < batches; number++) {
                var data = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(TIMEOUT_MS);
                var topicData = new TopicProduceData().setName(topic);
                for (var partition = 0; partition < partitions; partition++) {
                    var batch = batch(records, timestamp);
                    topicData.partitionData()
                        .add(new PartitionProduceData().setIndex(partition).setRecords(batch));
                }
                data.topicData().add(topicData);
                send(socket, new ProduceRequest(data, VERSION), number);
            }
        }
    }

    private static MemoryRecords batch(int count, long timestamp) {
        var records = IntStream.range(0, count)
            .mapToObj(number -> new SimpleRecord(0, "foreign".getBytes(), "{}".getBytes()));
        var batch = MemoryRecords.withRecords(Compression.NONE, records.toArray(SimpleRecord[]::new));
        var bytes = batch.buffer();
        bytes.putLong(BASE_TIMESTAMP, timestamp);
        bytes.putLong(MAX_TIMESTAMP, timestamp);
        var crc = Crc32C.compute(bytes, ATTRIBUTES, bytes.limit() - ATTRIBUTES);
        bytes.putInt(CRC, (int) crc);
        return MemoryRecords.readableRecords(bytes);
    }

    private static void send(Socket socket, ProduceRequest request, int number) throws IOException {
        var header = new RequestHeader(ApiKeys.PRODUCE, VERSION, "foreign", number);
        var bytes = request.serializeWithHeader(header);
        var framed = ByteBuffer.allocate(Integer.BYTES + bytes.remaining());
        framed.putInt(bytes.remaining()).put(bytes);
        socket.getOutputStream().write(framed.array());

        var input = new DataInputStream(socket.getInputStream());
        var answer = ByteBuffer.wrap(input.readNBytes(input.readInt()));
        var response = (ProduceResponse) AbstractResponse.parseResponse(answer, header);
        for (var error : response.errorCounts().keySet()) {
            if (error != Errors.NONE) {
                throw error.exception();
            }
        }
    }
}
