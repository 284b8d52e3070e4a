#!/bin/sh
# Stands in for Tomcat's start script: waits for a web application in webapps,
# says what Tomcat would say, unpacks it, and serves it, and what lies in its
# folder cgi-bin in the place of servlets, until the container is stopped.
webapps=/root/apache-tomcat-7.0.42-v2/webapps
log() {
	echo "$(date '+%b %d, %Y %I:%M:%S %p') $1"
	shift
	echo "INFO: $*"
}

log org.apache.catalina.core.StandardEngine.startInternal \
	"Starting Servlet Engine: a stand-in for Apache Tomcat/7.0.42"
until ls "$webapps"/*.war >/dev/null 2>&1; do
	sleep 0.5
done
for war in "$webapps"/*.war; do
	log org.apache.catalina.startup.HostConfig.deployWAR "Deploying web application archive $war"
	unzip -q -o "$war" -d "${war%.war}"
done
ls -l "$webapps"
httpd -v -p 8080 -h "$webapps" || exit
log org.apache.coyote.AbstractProtocol.start 'Starting ProtocolHandler ["http-bio-8080"]'
log org.apache.catalina.startup.Catalina.start "Server startup complete"
while :; do
	sleep 3600
done
