import java.util.Optional;
import org.apache.pulsar.metadata.api.MetadataStore;
import org.apache.pulsar.metadata.api.MetadataStoreConfig;
import org.apache.pulsar.metadata.api.MetadataStoreFactory;

/** Takes a killed broker and bookie out of the metadata: with them in it, the next start may wait for them for ever. */
public final class ForgetCrash {
    private static final String[] REGISTRIES = {"/ledgers/available", "/loadbalance/brokers"};

    public static void main(String[] arguments) throws Exception {
        MetadataStoreConfig config = MetadataStoreConfig.builder().build();
        try (MetadataStore metadata = MetadataStoreFactory.create("rocksdb:" + arguments[0], config)) {
            for (String registry : REGISTRIES) {
                for (String name : metadata.getChildren(registry).get()) {
                    if (!name.equals("readonly")) {
                        metadata.delete(registry + "/" + name, Optional.empty()).get();
                    }
                }
            }
        }
    }
}
