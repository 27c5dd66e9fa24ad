/* The library's version, and the mark of what it exports. */
#ifndef ITERA_VERSION_H
#define ITERA_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/* CMake reads the project's version here. Until 1.0 a new minor version may change the interface in
 * any way, and a shared library's name (libitera.so.0.MINOR) changes with it. */
#define ITERA_VERSION_MAJOR 0
#define ITERA_VERSION_MINOR 1
#define ITERA_VERSION_PATCH 0

#if defined(__GNUC__)
#define ITERA_API __attribute__((visibility("default")))
#else
#define ITERA_API
#endif

/* "MAJOR.MINOR.PATCH" of the library that is linked, never NULL; the macros are of the headers. */
ITERA_API const char *itera_version(void);

#ifdef __cplusplus
}
#endif
#endif
