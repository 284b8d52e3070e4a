/*
 * A small C guest that does a little of everything a container does:
 *
 *   hello [-n TICKS] [-i MILLISECONDS] [-r FILE] [-w FILE] [-x CODE] [WORD]...
 *
 * prints its arguments and environment, reads a file, appends to a file,
 * prints a line every so often, and exits with a code.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int usage(void) {
  fprintf(stderr, "usage: hello [-n TICKS] [-i MILLISECONDS] [-r FILE] [-w FILE] [-x CODE] [WORD]...\n");
  return 2;
}

static int complain(const char *what) {
  fprintf(stderr, "hello: %s: %s\n", what, strerror(errno));
  return 1;
}

static int print_file(const char *name) {
  char buf[4096];
  size_t n;
  FILE *f = fopen(name, "r");
  if (f == NULL)
    return complain(name);
  while ((n = fread(buf, 1, sizeof buf, f)) > 0)
    fwrite(buf, 1, n, stdout);
  if (ferror(f)) {
    int rc = complain(name);
    fclose(f);
    return rc;
  }
  fclose(f);
  return 0;
}

static int append_line(const char *name, const char *line) {
  FILE *f = fopen(name, "a");
  if (f == NULL)
    return complain(name);
  if (fprintf(f, "%s\n", line) < 0) {
    int rc = complain(name);
    fclose(f);
    return rc;
  }
  if (fclose(f) != 0)
    return complain(name);
  return 0;
}

int main(int argc, char **argv) {
  long ticks = 0, interval = 1000, code = 0;
  const char *in = NULL, *out = NULL;
  int opt, rc;

  setvbuf(stdout, NULL, _IOLBF, 0); /* so that logs can be followed */
  while ((opt = getopt(argc, argv, "n:i:r:w:x:")) != -1) {
    switch (opt) {
    case 'n': ticks = strtol(optarg, NULL, 10); break;
    case 'i': interval = strtol(optarg, NULL, 10); break;
    case 'r': in = optarg; break;
    case 'w': out = optarg; break;
    case 'x': code = strtol(optarg, NULL, 10); break;
    default: return usage();
    }
  }
  if (ticks < 0 || interval < 0 || code < 0 || code > 255)
    return usage();

  printf("hello from %s\n", argv[0]);
  for (int i = optind; i < argc; i++)
    printf("argument: %s\n", argv[i]);
  for (char **e = environ; *e != NULL; e++)
    printf("environment: %s\n", *e);
  if (in != NULL && (rc = print_file(in)) != 0)
    return rc;
  for (long i = 1; i <= ticks; i++) {
    struct timespec t = {interval / 1000, interval % 1000 * 1000000};
    nanosleep(&t, NULL);
    printf("tick %ld\n", i);
  }
  if (out != NULL && (rc = append_line(out, "hello was here")) != 0)
    return rc;
  fprintf(stderr, "hello exits with %ld\n", code);
  return (int)code;
}
