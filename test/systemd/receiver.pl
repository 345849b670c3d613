# The other end of NOTIFY_SOCKET: receives datagrams, says each on stdout as one line, newlines
# as "|". The argument is a path, or @name for an abstract one. Ends when its stdin does.
use strict;
use Socket;
my $name = $ARGV[0];
$name =~ s/^@/\0/;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
bind($socket, pack_sockaddr_un($name)) or die "bind: $!";
$| = 1;
print "ready\n";
while (1) {
  my $ready = '';
  vec($ready, fileno($socket), 1) = 1;
  vec($ready, fileno(STDIN), 1) = 1;
  next if select($ready, undef, undef, undef) < 1;
  exit 0 if vec($ready, fileno(STDIN), 1) && !sysread(STDIN, my $rest, 1);
  next unless vec($ready, fileno($socket), 1);
  defined recv($socket, my $message, 65536, 0) or die "recv: $!";
  $message =~ s/\n/|/g;
  print "$message\n";
}
