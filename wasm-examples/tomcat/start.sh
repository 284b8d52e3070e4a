#!/bin/sh
# Stands in for Tomcat's start script: waits for a web application in webapps,
# says what Tomcat would say, and then serves, which here means to sleep until
# the container is stopped.
home=/root/apache-tomcat-7.0.42-v2
log() {
	echo "$(date '+%b %d, %Y %I:%M:%S %p') $1"
	shift
	echo "INFO: $*"
}

log org.apache.catalina.core.StandardEngine.startInternal \
	"Starting Servlet Engine: a stand-in for Apache Tomcat/7.0.42"
until ls "$home"/webapps/*.war >/dev/null 2>&1; do
	sleep 0.5
done
for war in "$home"/webapps/*.war; do
	log org.apache.catalina.startup.HostConfig.deployWAR "Deploying web application archive $war"
done
ls -l "$home/webapps"
log org.apache.catalina.startup.Catalina.start "Server startup complete"
while :; do
	sleep 3600
done
