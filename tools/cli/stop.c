#include "cli/stop.h"

#include <signal.h>

static volatile sig_atomic_t asked;

static void on_signal(int number)
{
    (void)number;
    asked = 1;
}

static void catch (int number, int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void stop_catch(void)
{
    catch (SIGINT, (int)SA_RESETHAND);
    catch (SIGTERM, (int)SA_RESETHAND);
    /* A terminal that closes sends it twice, from the kernel and from the shell. */
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) || before.sa_handler != SIG_IGN)
        catch (SIGHUP, 0);
}

bool stop_asked(void)
{
    return asked;
}
