# Shared by broker and topic: where the jars are, and how to run a class of
# them.  The caller has set $here to this folder.

libs=${IMGPIPE_KAFKA_LIBS:-$here/../../build/kafka/libs}

need_libs()
{
	if ! [ -r "$libs" ]; then
		echo "no Kafka in $libs: run test/kafka/fetch first" >&2
		exit 1
	fi
}

# A command-line tool of Kafka's.  What it logs goes to $dir/tools.log.
kafka_tool()
{
	need_libs
	java -XX:-UsePerfData -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
		-Dkafka.log="$dir/tools.log" -Dlog4j.configuration="file:$here/log4j.properties" \
		-cp "$libs/*" "$@"
}
