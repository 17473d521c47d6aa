/* The first process of the emulated machine (see ci/avx512): runs /program with the last word of the kernel's command line,
 * reports its exit status, and switches the machine off. */
#include <stdio.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int status = -1;
  const pid_t child = fork();
  if (child == 0) {
    execl("/program", "/program", argv[argc - 1], (char *)NULL);
    _exit(127);
  }
  waitpid(child, &status, 0);
  printf("END %d\n", status);
  fflush(stdout);
  tcdrain(STDOUT_FILENO); /* the serial line is slower than the switch */
  ioperm(0x8900, 1, 1);   /* Bochs ends when this word arrives at this port */
  for (const char *c = "Shutdown"; *c != '\0'; ++c) outb((unsigned char)*c, 0x8900);
  for (;;) pause();
}
