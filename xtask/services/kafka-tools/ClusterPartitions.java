import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.Node;

/**
 * Prints who has each partition of a topic: number, leader, replicas, replicas in sync. Bootstrap servers, topic, and `now`
 * or `in-sync`, which waits until all replicas are in sync. Run from its source (JEP 330).
 */
class ClusterPartitions {
    static final long LIMIT_MS = 60_000;

    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        var topic = arguments[1];
        var waits = arguments[2].equals("in-sync");
        var deadline = System.currentTimeMillis() + LIMIT_MS;
        try (var admin = Admin.create(properties)) {
            while (true) {
                try {
                    var partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
                    var inSync = partitions.stream()
                            .allMatch(partition -> partition.isr().size() == partition.replicas().size());
                    if (inSync || !waits) {
                        for (var partition : partitions) {
                            var leader = partition.leader() == null ? List.<Node>of() : List.of(partition.leader());
                            System.out.println(partition.partition() + " " + ids(leader) + " "
                                    + ids(partition.replicas()) + " " + ids(partition.isr()));
                        }
                        return;
                    }
                } catch (ExecutionException error) {
                    if (System.currentTimeMillis() > deadline) {
                        throw error;
                    }
                }
                if (System.currentTimeMillis() > deadline) {
                    throw new IllegalStateException("replicas are not in sync");
                }
                Thread.sleep(100);
            }
        }
    }

    static String ids(List<Node> nodes) {
        return nodes.stream().filter(node -> !node.isEmpty()).map(Node::idString).collect(Collectors.joining(","));
    }
}
